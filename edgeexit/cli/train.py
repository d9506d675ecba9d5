"""`edgeexit train`: what a recipe names is trained, on its own data or on somebody's."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json
from edgeexit.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from edgeexit.cli.recipe_flow import Choices, Prepared, Weights
    from edgeexit.models.branch_config import BranchKind
    from edgeexit.training.augmentation import Augmentation
    from edgeexit.training.objective import Objective
    from edgeexit.training.recipe import Recipe, Say
    from edgeexit.training.schedule import TrainingProgress


class MethodName(str, Enum):
    """Which parts are trained when; `edgeexit.training.methods` says what each is."""

    JOINT = "joint"
    FROZEN = "frozen"
    LAYER_WISE = "layer-wise"
    BACKBONE_FIRST = "backbone-first"


class Maps(str, Enum):
    """Whose activation map exits are drawn to."""

    OWN = "own"
    LAST = "last"


class Amp(str, Enum):
    """The half precision of training."""

    NONE = "none"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class OptimizerName(str, Enum):
    """Who moves the weights."""

    MUON = "muon"
    ADAMW = "adamw"
    SGD = "sgd"


@command
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe: a Python file as those in export/.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Directory of the recipe's own data; or your own: imagefolder:DIR, cifar10:DIR,"
            " cifar100:DIR, idx:DIR, csv:FILE. Nothing is fetched."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the weights go; a file in --work without.")] = None,
    work: Annotated[Path, typer.Option(help="Where weights, snapshots and logs are kept.")] = Path(
        "build/work"
    ),
    epochs: Annotated[float | None, typer.Option(min=0.001, help="Rounds of the training images.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Train no longer than this.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    resume: Annotated[
        bool, typer.Option(help="Go on with a run that was cut, or take the weights of a finished one.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    amp: Annotated[
        Amp | None, typer.Option(help="Half precision; without: bfloat16 on a GPU, none on a CPU.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images of one step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest.")] = None,
    optimizer: Annotated[OptimizerName | None, typer.Option(help="Who moves the weights.")] = None,
    ema: Annotated[float | None, typer.Option(help="Keep the moving average with this decay.")] = None,
    method: Annotated[MethodName | None, typer.Option(help="What is trained when.")] = None,
    distil: Annotated[bool, typer.Option("--distil", help="Early exits learn from the last one.")] = False,
    rescale: Annotated[bool, typer.Option("--rescale", help="Rescale gradients, as BoostNet.")] = False,
    weigh: Annotated[
        bool, typer.Option("--weigh", help="Learn to weigh samples (L2W-DEN); for --optimizer sgd.")
    ] = False,
    maps: Annotated[Maps | None, typer.Option(help="Match activation maps (CAM-loss).")] = None,
    mixup: Annotated[float | None, typer.Option(min=0.0, help="Alpha of Mixup.")] = None,
    cutmix: Annotated[float | None, typer.Option(min=0.0, help="Alpha of CutMix.")] = None,
    randaugment: Annotated[
        int | None, typer.Option(min=0, max=14, help="Operations of RandAugment on each image.")
    ] = None,
    magnitude: Annotated[int, typer.Option(min=0, max=30, help="Of RandAugment.")] = 9,
    after: Annotated[str | None, typer.Option(help="Blocks before each early exit, as 3,6,9.")] = None,
    branch: Annotated[str | None, typer.Option(help="Kind of the early exits' branches.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the backbone, for recipes that start from some.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let the backbone's library fetch its weights.")
    ] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="The recipe's small size.")] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Convert as well, into this bundle, calibrated on what was held out."),
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard's logs.")] = None,
    snapshot_seconds: Annotated[
        float, typer.Option(min=0.0, help="How often a snapshot is kept: what a kill may cost.")
    ] = 60.0,
    threads: Annotated[int | None, typer.Option(min=1, help="All cores when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Train a recipe's network with all its exits. A run that was cut goes on where it was.

    Under torchrun it trains on several GPUs or machines: torchrun --no-python edgeexit train RECIPE.
    """
    import torch

    from edgeexit.cli.recipe_flow import Choices, find_or_train, prepare
    from edgeexit.cli.training_bar import TrainingBar
    from edgeexit.training.processes import join_processes, leave_processes
    from edgeexit.training.recipe import read_recipe

    if threads is not None:
        torch.set_num_threads(threads)
    named = read_recipe(recipe)
    place = _device(device)
    processes = join_processes(place.type)
    try:
        if processes.count > 1 and place.type == "cuda":
            place = torch.device("cuda", torch.cuda.current_device())
        choices = Choices(
            tiny=tiny,
            data=data,
            work=work,
            out=out,
            seed=seed,
            seconds=seconds,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            after=None if after is None else _depths(after),
            branch=None if branch is None else _branch(branch),
            weights=weights,
            download=download,
            objective=_objective(named, method, distil, rescale, weigh, maps),
            augmentation=_augmentation(named, mixup, cutmix, randaugment, magnitude),
            ema_decay=ema,
            optimizer=None if optimizer is None else optimizer.value,
            half=None if amp is None else amp.value,
            resume=resume,
            every_s=snapshot_seconds,
            tensorboard=tensorboard,
            device=place,
        )

        def say(line: str) -> None:
            if processes.rank == 0:
                typer.echo(line, err=True)

        prepared = prepare(named, choices, say, processes=processes)
        with TrainingBar(prepared.training.samples) as bar:
            found = find_or_train(prepared, choices, say, progress=bar.show, processes=processes)
        if processes.rank == 0:
            if bundle is not None:
                _convert(prepared, found, choices, bundle, say)
            _show(prepared, found, choices, bundle, as_json)
    finally:
        leave_processes()


def _convert(prepared: Prepared, weights: Weights, choices: Choices, bundle: Path, say: Say) -> None:
    """Make the bundle. Raises: ConvertError and its leaves, ConfigError, DataError, BundleError."""
    from dataclasses import replace

    from edgeexit.cli.recipe_flow import conversion_plan
    from edgeexit.convert.conversion import convert
    from edgeexit.convert.progress import ProgressLines
    from edgeexit.convert.report import render
    from edgeexit.training.own_data import is_own_data

    plan = conversion_plan(prepared, weights.sha256)
    if choices.data is not None and is_own_data(choices.data):
        # The recipe speaks of its own data, not of these.
        plan = replace(plan, name=bundle.resolve().name, licence="not stated")
    data = prepared.data
    report = convert(
        prepared.network,
        plan,
        calibration=data.held_out,
        test=data.test,
        out=bundle,
        progress=ProgressLines(say),
    )
    say(render(report))


def _show(prepared: Prepared, weights: Weights, choices: Choices, bundle: Path | None, as_json: bool) -> None:
    import msgspec

    end: TrainingProgress | None = weights.progress
    if as_json:
        shown = {
            "name": prepared.recipe.name,
            "checkpoint": str(weights.path),
            "sha256": weights.sha256,
            "task": prepared.data.task,
            "classes": prepared.data.classes,
            "skipped_images": prepared.data.skipped,
            "trained": end,
            "bundle": None if bundle is None else str(bundle),
            "log": str(weights.path.with_suffix(".jsonl")),
        }
        show_json(msgspec.json.encode(shown))
        return
    typer.echo(f"weights: {weights.path}")
    if bundle is not None:
        typer.echo(f"bundle: {bundle}")
    own = f" --recipe {prepared.recipe.file}" if choices.data is None else f" --data {choices.data}"
    typer.echo(f"next: edgeexit evaluate {weights.path}{own}", err=True)


def _device(name: str) -> torch.device:
    """Where training runs. Raises: ConfigError when there is no such device."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"{name} is no device",
            key="device",
            why="torch knows none of that name",
            fix="--device auto, cpu, cuda or cuda:N",
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no {name} here",
            key="device",
            why=f"torch sees {torch.cuda.device_count()} GPUs",
            fix="--device cpu, or a torch build with CUDA",
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"{name} is not supported",
            key="device",
            why="training runs on processors and on GPUs with CUDA",
            fix="--device auto, cpu, cuda or cuda:N",
        )
    return device


def _depths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--after {text} names no blocks",
            key="after",
            why="blocks are counted from 1, in whole numbers with commas between",
            fix="such as --after 3,6,9",
        ) from error


def _branch(name: str) -> BranchKind:
    from edgeexit.models.branch_config import BRANCH_KINDS

    for kind in BRANCH_KINDS:
        if kind == name:
            return kind
    raise ConfigError(
        f"branch {name!r} is unknown",
        key="branch",
        why=f"known: {', '.join(BRANCH_KINDS)}",
        fix="choose a known one",
    )


def _objective(
    recipe: Recipe, method: MethodName | None, distil: bool, rescale: bool, weigh: bool, maps: Maps | None
) -> Objective | None:
    """What is trained for; None where all of it is the recipe's."""
    from edgeexit.training.map_matching import MapMatching
    from edgeexit.training.methods import BackboneFirst, FrozenBackbone, Joint, LayerWise, Method
    from edgeexit.training.objective import Objective, SelfDistillation
    from edgeexit.training.sample_weighting import SampleWeighting

    if method is None and maps is None and not (distil or rescale or weigh):
        return None
    methods: dict[MethodName, Method] = {
        MethodName.JOINT: Joint(),
        MethodName.FROZEN: FrozenBackbone(),
        MethodName.LAYER_WISE: LayerWise(),
        MethodName.BACKBONE_FIRST: BackboneFirst(),
    }
    chosen = recipe.objective.method if method is None else methods[method]
    if weigh and method is None:
        chosen = Joint(final_weight=1.0)  # the only method that it goes with, as its source has it
    return Objective(
        method=chosen,
        distillation=SelfDistillation() if distil else recipe.objective.distillation,
        rescale_gradients=rescale or recipe.objective.rescale_gradients,
        weighting=SampleWeighting() if weigh else recipe.objective.weighting,
        maps=recipe.objective.maps if maps is None else MapMatching(teacher=maps.value),
    )


def _augmentation(
    recipe: Recipe, mixup: float | None, cutmix: float | None, operations: int | None, magnitude: int
) -> Augmentation | None:
    """How images are changed; None where all of it is the recipe's. Raises: ConfigError."""
    from edgeexit.training.augmentation import Augmentation

    if mixup is None and cutmix is None and operations is None:
        return None
    own = recipe.augmentation or Augmentation()
    try:
        return Augmentation(
            mixup_alpha=own.mixup_alpha if mixup is None else mixup,
            cutmix_alpha=own.cutmix_alpha if cutmix is None else cutmix,
            operations=own.operations if operations is None else operations,
            magnitude=own.magnitude if operations is None else magnitude,
        )
    except ValueError as error:
        raise ConfigError(
            "images cannot be augmented so",
            key="augmentation",
            why=str(error),
            fix="change what is named there; edgeexit train --help says what goes together",
        ) from error
