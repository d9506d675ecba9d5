"""The way of a recipe: open its data, train or find its weights, evaluate, and say what its bundle is to be.

`edgeexit train`, `edgeexit evaluate` and the files in `export/` go it; each step finds what was done before.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeexit.errors import ConfigError, DataError
from edgeexit.models.branch_config import BranchKind
from edgeexit.models.description import Description, read_description
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.vit import VisionTransformer
from edgeexit.training.augmentation import Augmentation
from edgeexit.training.augmenting import AugmentedBatches
from edgeexit.training.batches import BatchSource
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.logs import LogPlaces, TrainingLog
from edgeexit.training.loop import train
from edgeexit.training.objective import Objective
from edgeexit.training.own_data import is_own_data, own_data
from edgeexit.training.processes import Processes
from edgeexit.training.recipe import NetworkWanted, Recipe, RecipeData, Say
from edgeexit.training.schedule import HalfKind, OptimizerKind, TrainingConfig, TrainingProgress
from edgeexit.training.snapshot import Snapshots
from edgeexit.training.stored import NETWORK_NOTE, describing_notes

if TYPE_CHECKING:
    import torch

    from edgeexit.convert.plan import ConversionPlan

WORK = Path("build/work")


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user says beside the recipe; None and False leave it to the recipe.

    `data` is a directory for the recipe's own data or `KIND:PATH` for somebody's own. `epochs` are rounds of
    the training items, `samples` images. `every_s` says how often a snapshot is kept.
    """

    tiny: bool = False
    data: str | None = None
    work: Path = WORK
    out: Path | None = None
    seed: int = 0
    seconds: float | None = None
    epochs: float | None = None
    samples: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    after: tuple[int, ...] | None = None
    branch: BranchKind | None = None
    weights: Path | None = None
    download: bool = False
    objective: Objective | None = None
    augmentation: Augmentation | None = None
    ema_decay: float | None = None
    optimizer: OptimizerKind | None = None
    half: HalfKind | Literal["none"] | None = None
    resume: bool = True
    every_s: float = 60.0
    tensorboard: Path | None = None
    device: torch.device | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe with its choices made, its data open and its network built, trained or not.

    `key` names everything that shapes the weights; `path` is where these are kept.
    """

    recipe: Recipe
    data: RecipeData
    network: MultiExitNetwork
    description: Description
    training: TrainingConfig
    objective: Objective
    augmentation: Augmentation | None
    key: str
    path: Path

    @property
    def source(self) -> BatchSource:
        """Training batches, augmented as is asked for. Raises: ConfigError."""
        source = self.data.train(self.training.seed)
        if self.augmentation is None or self.augmentation == Augmentation():
            return source
        return AugmentedBatches(source, self.augmentation, len(self.data.classes), self.training.seed)


@dataclass(frozen=True, slots=True)
class Weights:
    """Trained weights on disk. `progress` is None where they were there already."""

    path: Path
    sha256: str
    progress: TrainingProgress | None


def prepare(recipe: Recipe, choices: Choices, say: Say, *, processes: Processes | None = None) -> Prepared:
    """Open the data, build the network, and settle how it is trained.

    Raises: ConfigError, DataError, CannotCut, MissingExtra.
    """
    if choices.tiny:
        if recipe.tiny is None:
            raise ConfigError(
                f"{recipe.name} has no tiny size",
                key="tiny",
                why="its file gives no `tiny` recipe",
                fix="leave --tiny out",
            )
        recipe = recipe.tiny
    data = open_data(recipe, choices.data, say)
    if data.task not in recipe.tasks:
        raise ConfigError(
            f"{recipe.name} cannot learn a {data.task}",
            key="data",
            why=f"{data.name} has {'classes' if data.classes else 'values'}",
            fix=f"give data for a {' or a '.join(recipe.tasks)}, or take another recipe",
        )
    network = recipe.network(
        NetworkWanted(
            task=data.task,
            classes=len(data.classes),
            value_offset=data.value_offset,
            value_scale=data.value_scale,
            seed=choices.seed,
            after=choices.after,
            branch=choices.branch,
            weights=choices.weights,
            download=choices.download,
        )
    )
    training = _training(recipe, choices, data, processes or Processes())
    objective = recipe.objective if choices.objective is None else choices.objective
    augmentation = recipe.augmentation if choices.augmentation is None else choices.augmentation
    key = _key(network, data, training, objective, augmentation)
    return Prepared(
        recipe=recipe,
        data=data,
        network=network,
        description=read_description(describing_notes(network)[NETWORK_NOTE]),
        training=training,
        objective=objective,
        augmentation=augmentation,
        key=key,
        path=choices.out or checkpoint_path(choices.work, recipe.name, key),
    )


def open_data(recipe: Recipe, data: str | None, say: Say) -> RecipeData:
    """The recipe's own data, or somebody's. Raises: ConfigError, DataError."""
    if data is not None and is_own_data(data):
        opened = own_data(data, recipe.image_shape, say)
    else:
        opened = recipe.data(None if data is None else Path(data), say)
    counts = f"{len(opened.items):,} to learn from, {len(opened.held_out):,} held out, {len(opened.test):,}"
    say(f"data       {opened.name}: {counts} for the test")
    if opened.skipped:
        say(f"warning    {opened.skipped:,} images of {opened.name} could not be read and were left out")
    return opened


def find_or_train(
    prepared: Prepared,
    choices: Choices,
    say: Say,
    *,
    progress: Callable[[TrainingProgress], None] | None = None,
    processes: Processes | None = None,
) -> Weights:
    """Weights of an earlier run with the same settings, else of a training run, which goes on if it was cut.

    The network is left with them, on the CPU, in evaluation mode. Only the first of several processes writes.
    Raises: ConfigError, DataError, TrainingDiverged, OSError.
    """
    import torch

    alone = processes or Processes()
    first = alone.rank == 0
    stages = prepared.network.stages
    found = _found(prepared, say) if choices.resume else None
    if found is not None:
        say(f"train      already done: {prepared.path}")
        stages.eval()
        return Weights(prepared.path, found, None)
    snapshots = Snapshots(
        prepared.path.with_suffix(".snapshot.pt"), key=prepared.key, every_s=choices.every_s
    )
    log_lines = prepared.path.with_suffix(".jsonl")
    if not choices.resume and first:
        snapshots.remove()
    if not snapshots.path.exists() and first:
        log_lines.unlink(missing_ok=True)
    alone.wait()  # nobody looks for a snapshot before the first one has removed it
    say(f"train      {_budget(prepared.training)}, {torch.get_num_threads()} threads")
    if snapshots.path.exists():
        say(f"train      going on from {snapshots.path}")
    if choices.device is not None:
        stages.to(choices.device)
    with TrainingLog(LogPlaces(log_lines, choices.tensorboard)) if first else _Silent() as log:

        def tell(state: TrainingProgress) -> None:
            log.tell(state)
            (progress or (lambda each: say(progress_line(each))))(state)

        end = train(
            prepared.network,
            prepared.source,
            prepared.training,
            clock_s=time.monotonic,
            progress=tell,
            objective=prepared.objective,
            snapshots=snapshots,
        )
    stages.to("cpu")
    sha256 = ""
    if first:
        notes = {"samples": str(end.samples), "name": prepared.recipe.name}
        notes |= describing_notes(prepared.network, labels=prepared.data.classes)
        sha256 = save_checkpoint(prepared.network, prepared.path, key=prepared.key, notes=notes)
        snapshots.remove()
    alone.wait()
    return Weights(prepared.path, sha256, end)


class _Silent:
    """A log of a process that does not write."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, progress: TrainingProgress) -> None:
        """Write nothing."""


def conversion_plan(prepared: Prepared, sha256: str) -> ConversionPlan:
    """What the recipe says of its bundle, as the converter takes it. Raises: ConfigError."""
    from edgeexit.convert.plan import PLAIN_CODECS, ConversionPlan, Tolerances

    how, data = prepared.recipe.conversion, prepared.data
    usual = Tolerances()
    plan = ConversionPlan(
        name=prepared.recipe.name,
        version=how.version,
        network=str(prepared.description),
        dataset=data.name,
        licence=how.licence,
        labels=data.classes,
        task=data.task,
        error_scale=median_error(data) if data.task == "regression" else None,
        checkpoint_sha256=sha256,
        recipe_sha256=hashlib.sha256(prepared.recipe.file.read_bytes()).hexdigest(),
        variants=how.variants,
        codecs=PLAIN_CODECS if how.codecs is None else how.codecs,
        tolerances=replace(
            usual,
            parity=usual.parity if how.parity is None else how.parity,
            agreement=usual.agreement if how.agreement is None else how.agreement,
        ),
    )
    return plan if how.codec_samples is None else replace(plan, codec_samples=how.codec_samples)


def median_error(data: RecipeData) -> float:
    """Mean absolute error of always giving the median of the held-out values. Raises: DataError."""
    values = data.held_out.targets.astype(np.float64)
    error = float(np.abs(values - np.median(values)).mean())
    if not error > 0.0:
        raise DataError(
            f"{data.name} holds out one value alone",
            file=data.name,
            why="errors cannot be weighed against values that are all the same",
            fix="hold out more images",
        )
    return error


def progress_line(progress: TrainingProgress) -> str:
    """Where training is, in one line."""
    rate = progress.samples / max(progress.elapsed_s, 1e-3)
    losses = " ".join(f"{loss:.3f}" for loss in progress.losses)
    done = f"{progress.fraction:4.0%}  {progress.samples:>7,} images  {rate:5.0f}/s"
    return f"train      {done}  loss by exit {losses}"


def _found(prepared: Prepared, say: Say) -> str | None:
    try:
        return load_checkpoint(prepared.network, prepared.path, key=prepared.key)
    except DataError as error:
        say(f"warning    {error}; training again")
        return None


def _budget(training: TrainingConfig) -> str:
    limit = "" if training.seconds is None else f", {training.seconds:.0f} s at most"
    return f"{training.samples:,} images{limit}"


def _training(recipe: Recipe, choices: Choices, data: RecipeData, processes: Processes) -> TrainingConfig:
    """The recipe's settings with those of the user. Raises: ConfigError."""
    training = replace(recipe.training, seed=choices.seed)
    if processes.count > 1:
        # Processes must stop at the same batch, which clocks do not tell.
        training = replace(training, seconds=None)
    samples = choices.samples
    if choices.epochs is not None:
        samples = max(1, round(choices.epochs * len(data.items)))
    try:
        if choices.optimizer is not None:
            training = replace(training, optimizer=choices.optimizer)
        if choices.half is not None:
            half = None if choices.half == "none" else choices.half
            training = replace(training, half=half, mixed_precision=half is not None)
        if samples is not None:
            # A budget of the user's own stands in place of the recipe's, of either kind.
            training = replace(training, samples=samples, seconds=None)
        if choices.seconds is not None:
            training = replace(training, seconds=choices.seconds)
        if choices.batch_size is not None:
            training = replace(training, batch_size=choices.batch_size)
        if choices.learning_rate is not None:
            training = replace(training, learning_rate=choices.learning_rate)
        if choices.ema_decay is not None:
            training = replace(training, ema_decay=choices.ema_decay)
    except ValueError as error:
        raise ConfigError(
            "training cannot be done so",
            key="training",
            why=str(error),
            fix="change what is named there; edgeexit train --help says what goes together",
        ) from error
    return training


def _key(
    network: MultiExitNetwork,
    data: RecipeData,
    training: TrainingConfig,
    objective: Objective,
    augmentation: Augmentation | None,
) -> str:
    """The name of everything that shapes the weights."""
    settings: list[object] = [describing_notes(network)[NETWORK_NOTE], *data.settings, training]
    if objective != Objective():
        settings += [repr(objective)]
    if augmentation is not None and augmentation != Augmentation():
        settings += [augmentation]
    if not isinstance(network, VisionTransformer):
        # The weights of a backbone do not follow from the seed.
        weights = hashlib.sha256()
        for tensor in network.stages.state_dict().values():
            weights.update(tensor.numpy().tobytes())
        settings.append(weights.hexdigest())
    return settings_key(settings, [data.items])
