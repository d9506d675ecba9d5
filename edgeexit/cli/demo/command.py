"""`edgeexit demo`: the main job on real images, from training to a report, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json

if TYPE_CHECKING:
    from edgeexit.replay.frames import RunFigures

RECIPE = Path("export/vit_fashion_clutter.py")
# The name that stands for "no other board than this one".
THIS = "this"


@command
def demo(
    seconds: Annotated[float, typer.Option(min=5.0, help="How long the device answers frames.")] = 60.0,
    board: Annotated[str, typer.Option(help="Board to play; `this` plays none.")] = "raspberry-pi-4",
    folder: Annotated[Path, typer.Option(help="Where everything is made and kept.")] = Path("build/demo"),
    recipe: Annotated[Path, typer.Option(help="The recipe that trains and converts.")] = RECIPE,
    tiny: Annotated[bool, typer.Option("--tiny", help="A network that trains in seconds.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder with Fashion-MNIST's IDX files.")] = None,
    train_seconds: Annotated[float | None, typer.Option(help="Train no longer than this.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Replay this network trace instead of the demo's own.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many test images to run.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run's figures as JSON.")] = False,
) -> None:
    """Train, convert, flash, serve and run on real images; then report."""
    import msgspec
    from rich.console import Console

    from edgeexit.cli.demo.plan import Folders
    from edgeexit.cli.demo.report import write_report
    from edgeexit.cli.demo.steps import Recipe, make_bundle, serve, time_board

    folders = Folders(folder)
    played = None if board == THIS else board
    arguments: list[str] = []
    if tiny:
        arguments.append("--tiny")
    if data is not None:
        arguments += ["--data", str(data)]
    if train_seconds is not None:
        arguments += ["--train-seconds", str(train_seconds)]
    bundle = make_bundle(Recipe(recipe, tuple(arguments)), folders, image_count=images, quiet=as_json)
    timing = time_board(bundle, played, folders, seconds)

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    console = Console(stderr=as_json)
    run = serve(bundle, folders, timing, board=played, link=trace, say=say, console=console)
    say("report     replaying the fixed policies over the same run")
    figures = write_report(folder, bundle, folders, run)
    if as_json:
        show_json(msgspec.json.encode(figures))
    else:
        _show(figures, folder)


def _show(figures: RunFigures, folder: Path) -> None:
    right = figures.correct_by_deadline_fraction
    typer.echo(
        f"\n{figures.frames} frames, {figures.answered} answered, {figures.late} late, "
        f"{figures.on_time_fraction:.2%} on time"
        + ("" if right is None else f", {right:.2%} right by their deadline")
    )
    typer.echo(f"report: {folder / 'report.html'} and {folder / 'report.json'}")
