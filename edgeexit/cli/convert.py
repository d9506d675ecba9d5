"""`edgeexit convert`: trained weights and held-out images become a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json
from edgeexit.errors import ConfigError

if TYPE_CHECKING:
    from edgeexit.cli.image_folders import ImageSet
    from edgeexit.training.stored import StoredNetwork


@command
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="A safetensors file that says what network it is of, as recipes write it.")
    ],
    calibration: Annotated[
        Path,
        typer.Argument(
            help="Folder of images held out of training: with truth.json, or one folder for each class."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    test: Annotated[
        Path | None, typer.Option(help="Folder of images for the figures of the report alone.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; that of its folder without.")] = None,
    version: Annotated[str, typer.Option(help="Version of the bundle, three numbers.")] = "1.0.0",
    licence: Annotated[str, typer.Option(help="What covers the weights.")] = "not stated",
    labels: Annotated[
        Path | None,
        typer.Option(help="File with one label a line; else the checkpoint's own, else class folders."),
    ] = None,
    error_scale: Annotated[
        float | None,
        typer.Option(
            help="Values only: the error at which an answer is worth nothing;"
            " without, that of always giving the median of the calibration images."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images of each folder, spread evenly.")
    ] = None,
    int8: Annotated[bool, typer.Option(help="Make 8-bit variants as well.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Cut a network at its exits, lower, check, quantise and calibrate each stage, and write a bundle."""
    from edgeexit.cli.bar import Bar
    from edgeexit.cli.image_folders import existing_folder, read_image_set
    from edgeexit.convert.conversion import convert as make
    from edgeexit.convert.plan import ConversionPlan
    from edgeexit.convert.progress import ProgressLines
    from edgeexit.convert.report import encode_report, render
    from edgeexit.training.stored import read_stored

    stored = read_stored(checkpoint)
    existing_folder(calibration)
    task = stored.description.task
    known = _labels(stored, labels, calibration) if task == "classification" else ()

    def say(line: str) -> None:
        typer.echo(line, err=True)

    def read(folder: Path) -> ImageSet:
        shape = stored.description.image_shape
        with Bar(f"reading {folder.name}", 0) as bar:
            return read_image_set(folder, known, shape, limit=limit, progress=bar.show)

    held_out: ImageSet | None = None
    if task == "regression" and error_scale is None:
        held_out = read(calibration)
        error_scale = _median_error(held_out)
    plan = ConversionPlan(
        name=name or out.resolve().name,
        version=version,
        network=str(stored.description),
        dataset=calibration.resolve().name,
        licence=licence,
        labels=known,
        task=task,
        error_scale=error_scale if task == "regression" else None,
        checkpoint_sha256=stored.sha256,
        variants=("f32", "int8") if int8 else ("f32",),
    )
    report = make(
        stored.network,
        plan,
        calibration=read(calibration) if held_out is None else held_out,
        test=None if test is None else read(test),
        out=out,
        progress=ProgressLines(say),
    )
    if as_json:
        show_json(encode_report(report).rstrip())
    else:
        typer.echo(render(report))
        typer.echo(f"\nbundle: {out}")


def _median_error(values: ImageSet) -> float:
    """Mean absolute error of always giving the median. Raises: ConfigError when all values are the same."""
    import numpy as np

    error = float(np.abs(values.targets - np.median(values.targets)).mean())
    if not error > 0.0:
        raise ConfigError(
            "the calibration images do not differ in their values",
            key="error_scale",
            why="the error of always giving the median is the measure of a regression, and it is 0",
            fix="give images with different values in truth.json, or --error-scale",
        )
    return error


def _labels(stored: StoredNetwork, file: Path | None, calibration: Path) -> tuple[str, ...]:
    """The labels, from the first place that has some; numbers where none has.

    Raises: ConfigError when there are not as many as the network has classes; DataError.
    """
    from edgeexit.cli.image_folders import class_folders, read_labels

    classes = stored.description.classes
    numbers = tuple(map(str, range(classes)))
    if file is not None:
        found, place = read_labels(file), str(file)
    elif stored.labels:
        found, place = stored.labels, "the checkpoint"
    else:
        found, place = class_folders(calibration) or numbers, str(calibration)
    if len(found) != classes:
        raise ConfigError(
            f"{len(found)} labels for {classes} classes",
            key="labels",
            why=f"that many are named by {place}",
            fix="name each class once, in the network's order, in a file given with --labels",
        )
    return found
