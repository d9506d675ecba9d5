"""`edgeexit evaluate`: what each exit of trained weights is worth, and what a budget buys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json
from edgeexit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edgeexit.training.recipe import Recipe, RecipeData
    from edgeexit.training.stored import StoredNetwork


@command
def evaluate(
    target: Annotated[
        Path, typer.Argument(help="Weights as `edgeexit train` writes them, or a recipe: its newest ones.")
    ],
    recipe: Annotated[Path | None, typer.Option(help="The recipe whose data are used.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Directory of the recipe's data; or imagefolder:DIR, cifar10:DIR, cifar100:DIR, idx:DIR,"
            " csv:FILE, split as in training."
        ),
    ] = None,
    work: Annotated[Path, typer.Option(help="Where the weights of recipes are kept.")] = Path("build/work"),
    tiny: Annotated[bool, typer.Option("--tiny", help="The recipe's small size.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle made of these weights: measure its exits here.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json, .svg, .png and .html.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime that is measured.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the evaluation as JSON.")] = False,
) -> None:
    """Evaluate each exit alone (anytime) and a budget over the whole set (budgeted batch).

    Thresholds are found on images held out of training, figures are those of the test images.
    """
    from edgeexit.cli.evaluation_report import (
        EvaluationReport,
        encode,
        measure_latency,
        render_latency,
        write_report,
    )
    from edgeexit.training.recipe import read_recipe
    from edgeexit.training.report import evaluate as judge
    from edgeexit.training.report import render_evaluation
    from edgeexit.training.stored import read_stored

    named = target if target.suffix == ".py" else recipe
    chosen = None if named is None else _size(read_recipe(named), tiny)
    checkpoint = _newest(chosen, work) if chosen is not None and target.suffix == ".py" else target
    stored = read_stored(checkpoint)
    given = _data(stored, chosen, data)
    latency = (
        None if bundle is None else measure_latency(bundle, checkpoint_sha256=stored.sha256, threads=threads)
    )
    found = judge(stored.network, given.held_out, given.test)
    report = EvaluationReport(
        name=checkpoint.stem if chosen is None else chosen.name,
        checkpoint=checkpoint.name,
        checkpoint_sha256=stored.sha256,
        data=given.name,
        skipped_images=given.skipped,
        evaluation=found,
        latency=latency,
    )
    if as_json:
        show_json(encode(report))
    else:
        typer.echo(f"{checkpoint}\n{render_evaluation(found)}")
        if latency is not None:
            typer.echo(render_latency(latency))
    if out is not None:
        for path in write_report(report, out):
            typer.echo(f"written: {path}", err=True)


def _size(recipe: Recipe, tiny: bool) -> Recipe:
    if not tiny:
        return recipe
    if recipe.tiny is None:
        raise ConfigError(
            f"{recipe.name} has no tiny size",
            key="tiny",
            why="its file gives no `tiny` recipe",
            fix="leave --tiny out",
        )
    return recipe.tiny


def _newest(recipe: Recipe, work: Path) -> Path:
    """The weights of a recipe that were written last. Raises: ConfigError when there are none."""
    # The key of settings has no hyphen, so that vit-fashion does not take vit-fashion-clutter's.
    there = [
        path
        for path in work.glob(f"{recipe.name}-*.safetensors")
        if "-" not in path.stem.removeprefix(f"{recipe.name}-")
    ]
    if not there:
        raise ConfigError(
            f"{recipe.name} is not trained yet",
            key="target",
            why=f"{work} has no weights of it",
            fix=f"edgeexit train {recipe.file}, or name its weights and --recipe",
        )
    return max(there, key=lambda path: path.stat().st_mtime_ns)


def _data(stored: StoredNetwork, recipe: Recipe | None, word: str | None) -> RecipeData:
    """The data, when they are what the network answers. Raises: ConfigError, DataError."""
    from edgeexit.cli.recipe_flow import open_data
    from edgeexit.training.own_data import is_own_data, own_data

    def say(line: str) -> None:
        typer.echo(line, err=True)

    shape, classes = stored.description.image_shape, stored.description.classes
    if word is not None and is_own_data(word):
        data = own_data(word, shape, say)
        if data.skipped:
            say(f"warning    {data.skipped:,} images of {data.name} could not be read and were left out")
    elif recipe is not None:
        data = open_data(recipe, word, say)
    else:
        raise ConfigError(
            "no data are given",
            key="data",
            why="weights alone do not say what they were trained on",
            fix="--recipe RECIPE, or --data imagefolder:DIR (or cifar10, cifar100, idx, csv)",
        )
    if data.task != stored.description.task or len(data.classes) != classes:
        has = f"{len(data.classes)} classes" if data.classes else "values"
        wants = f"{classes} classes" if classes else "values"
        raise ConfigError(
            f"{data.name} does not fit this network",
            key="data",
            why=f"{data.name} has {has}, the network answers {wants}",
            fix="give the data that it was trained for",
        )
    if stored.labels and data.classes != stored.labels:
        raise ConfigError(
            f"{data.name} has other classes than the network",
            key="data",
            why=f"{', '.join(data.classes[:5])} … and not {', '.join(stored.labels[:5])} …",
            fix="give the data that it was trained for",
        )
    if data.test.images.shape[1:] != shape:
        raise DataError(
            f"{data.name} has images of another shape",
            file=data.name,
            why=f"{data.test.images.shape[1:]}, where the network takes {shape}",
            fix="give the data that it was trained for",
        )
    return data
