"""`edgeexit convert`: a recipe, weights, a published model or a network of one's own becomes a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeexit.cli.present import command

if TYPE_CHECKING:
    from edgeexit.cli.material import Material, Told
    from edgeexit.cli.sources.opened import Asked

_SOURCE = "Source of the network"
_EXITS = "Exits, for a published model"
_DATA = "Images"
_BUNDLE = "The bundle"


@command
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A recipe (export/x.py), a checkpoint, timm:NAME, hf:NAME, the folder or ONNX file of a"
            " model, or module:factory."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.", rich_help_panel=_BUNDLE)],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of images held out of training, with truth.json or one folder for each class;"
            " or imagefolder:DIR, csv:FILE and others, which have parts to train on and to hold out.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Folder of images for the figures of the report alone.", rich_help_panel=_DATA),
    ] = None,
    calibrate: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many images of each set, spread evenly.", rich_help_panel=_DATA),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="File with one label a line; else the checkpoint's own, else class folders.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    error_scale: Annotated[
        float | None,
        typer.Option(
            help="Values only: the error at which an answer is worth nothing;"
            " without, that of always giving the median of the calibration images.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="Of a checkpoint that does not say what it is: its family.", rich_help_panel=_SOURCE
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="With --family: its settings, as JSON or TOML.", rich_help_panel=_SOURCE),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File or folder of the model's weights.", rich_help_panel=_SOURCE)
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Let the model's library fetch it.", rich_help_panel=_SOURCE),
    ] = False,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Convert weights that mean nothing, to see sizes and times.",
            rich_help_panel=_SOURCE,
        ),
    ] = False,
    image: Annotated[
        str | None,
        typer.Option(help="Images as channels, height and width: 3x224x224.", rich_help_panel=_SOURCE),
    ] = None,
    task: Annotated[
        Literal["classification", "regression"] | None,
        typer.Option(
            help="What the exits of a module:factory answer, or new ones of a published model.",
            rich_help_panel=_SOURCE,
        ),
    ] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="A recipe's tiny size.", rich_help_panel=_SOURCE)
    ] = False,
    seed: Annotated[int, typer.Option(help="Of new exits and their training.", rich_help_panel=_SOURCE)] = 0,
    work: Annotated[
        Path, typer.Option(help="Where trained weights are kept.", rich_help_panel=_SOURCE)
    ] = Path("build/work"),
    after: Annotated[
        str | None,
        typer.Option(help="Blocks after which there is an exit: 3,6,9.", rich_help_panel=_EXITS),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option(
            help="Kind of the exits' branches, one for all or one for each.", rich_help_panel=_EXITS
        ),
    ] = None,
    final: Annotated[
        str | None,
        typer.Option(help="Kind of a new last exit, in place of the model's head.", rich_help_panel=_EXITS),
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="Train new exits, or a recipe, on the training part first.",
            rich_help_panel=_EXITS,
        ),
    ] = False,
    train_samples: Annotated[
        int | None, typer.Option(min=1, help="With --train: on so many images.", rich_help_panel=_EXITS)
    ] = None,
    train_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="With --train: no longer than this.", rich_help_panel=_EXITS)
    ] = None,
    train_epochs: Annotated[
        float | None,
        typer.Option(min=0.01, help="With --train: so many rounds of them.", rich_help_panel=_EXITS),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the bundle; a recipe's, or that of its folder.", rich_help_panel=_BUNDLE),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Version of the bundle, three numbers.", rich_help_panel=_BUNDLE)
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="What covers the weights.", rich_help_panel=_BUNDLE)
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            help="What is made of each stage: f32,int8 without; docs/converting.md.", rich_help_panel=_BUNDLE
        ),
    ] = None,
    codecs: Annotated[
        str | None,
        typer.Option(
            help="Ways of sending a boundary, raw among them; pool4, merge8 or bottleneck8 are made by"
            " packers, and a bottleneck is trained first.",
            rich_help_panel=_BUNDLE,
        ),
    ] = None,
    bottleneck_samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images that the bottleneck of each boundary is trained on.", rich_help_panel=_BUNDLE
        ),
    ] = None,
    bottleneck_seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="And no longer than this, each.", rich_help_panel=_BUNDLE),
    ] = None,
    back_end: Annotated[
        str, typer.Option(help="What lowers the stages.", rich_help_panel=_BUNDLE)
    ] = "litert-torch",
    mixture_loss: Annotated[
        float | None,
        typer.Option(
            help="Seek the fastest mixture of variants that loses at most this fraction at every exit:"
            " 0.005 is half a point.",
            rich_help_panel=_BUNDLE,
        ),
    ] = None,
    mixture_times: Annotated[
        Path | None,
        typer.Option(
            help="Times of the board it is for: what edgeexit bench --on BUNDLE --json printed there.",
            rich_help_panel=_BUNDLE,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write nothing.", rich_help_panel=_BUNDLE)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the report, or the plan, as JSON.", rich_help_panel=_BUNDLE),
    ] = False,
) -> None:
    """Cut a network at its exits, lower, check, quantise and calibrate each stage, and write a bundle.

    The plan is shown first. A conversion that was stopped goes on from its finished steps.
    """
    from edgeexit.cli.conversion import carry_out, read_times, read_wanted
    from edgeexit.cli.material import Told
    from edgeexit.cli.sources.opened import Asked
    from edgeexit.cli.sources.settings import branches, depths, image_shape

    wanted = replace(
        read_wanted(name, variants, codecs, back_end),
        mixture_loss=mixture_loss,
        mixture_times=() if mixture_times is None else read_times(mixture_times),
        bottleneck_samples=bottleneck_samples,
        bottleneck_seconds=bottleneck_seconds,
    )
    finals = branches(final, key="final")
    asked = Asked(
        after=depths(after),
        branch=branches(branch),
        final=finals[0] if finals else None,
        family=family,
        config=config,
        weights=weights,
        download=download,
        random_weights=random_weights,
        image_shape=image_shape(image),
        task=task,
        seed=seed,
    )
    told = Told(
        data=data,
        test=test,
        name=name or out.resolve().name,
        version=version,
        licence=licence,
        labels_file=labels,
        error_scale=error_scale,
        limit=calibrate,
        train=train,
        train_samples=train_samples,
        train_seconds=train_seconds,
        train_epochs=train_epochs,
        tiny=tiny,
        dry_run=dry_run,
        random_weights=random_weights,
        work=work,
    )
    carry_out(_material(source, asked, told), source, told, wanted, out, as_json=as_json)


def _material(source: str, asked: Asked, told: Told) -> Material:
    """What there is to convert. Raises: ConfigError, DataError, ConvertError, MissingExtra."""
    from edgeexit.cli.conversion import say
    from edgeexit.cli.material import recipe_material, source_material
    from edgeexit.cli.sources.opening import is_recipe

    if is_recipe(source):
        return recipe_material(Path(source), asked, told, say)
    return source_material(source, asked, told, say)
