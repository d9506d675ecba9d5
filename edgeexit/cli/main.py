"""The `edgeexit` command: one thin file a verb; what a verb needs is imported when it runs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import edgeexit
from edgeexit.cli import (
    bench,
    bundle,
    convert,
    device,
    evaluate,
    flash,
    gateway,
    inspect,
    keys,
    plan,
    record,
    run,
    simulate,
    train,
)
from edgeexit.cli.demo import command as demo
from edgeexit.cli.present import INTERRUPTED


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        help="Vision models that answer by a deadline, on small boards, over networks that come and go.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_begin)
    app.command("train")(train.train)
    app.command("evaluate")(evaluate.evaluate)
    app.command("convert")(convert.convert)
    app.command("inspect")(inspect.inspect)
    app.command("run")(run.run)
    app.command("flash")(flash.flash)
    app.command("gateway")(gateway.gateway)
    app.command("device")(device.device)
    app.command("record")(record.record)
    app.command("simulate")(simulate.simulate)
    app.command("plan")(plan.plan)
    app.command("demo")(demo.demo)
    app.command("bench")(bench.bench)
    app.add_typer(bundle.build(), name="bundle")
    app.add_typer(keys.build(), name="keys")
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeexit {edgeexit.__version__}")
        raise typer.Exit


def _begin(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    """Root of the command line; only `--version` is its own."""
    # OpenMP's threads wait for each other by spinning. Beside any other load that made training with two
    # threads on two cores four to ten times slower; sleeping costs a fifth where nothing else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Entry point of the `edgeexit` program."""
    try:
        build()()
    except KeyboardInterrupt:  # before a command was found, which tells it itself
        typer.secho("interrupted", err=True)
        raise SystemExit(INTERRUPTED) from None
