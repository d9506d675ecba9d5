"""`edgeexit device`: the daemon that answers frames; the same code that the systemd unit runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgeexit.cli.present import command


@command
def device(
    config: Annotated[
        Path, typer.Option(help="The daemon's TOML file; see devices/provision/device.toml.")
    ] = Path("/etc/edgeexit/config.toml"),
    bundle: Annotated[str | None, typer.Option(help="Bundle to run instead of the configured one.")] = None,
    board: Annotated[str | None, typer.Option(help="Play this slower board.")] = None,
) -> None:
    """Answer frames by their deadlines until the source ends or a signal comes."""
    from edgeexit.device.config import load_config
    from edgeexit.device.daemon import run_device

    flags: dict[str, object] = {}
    if bundle is not None:
        flags["bundle"] = bundle
    if board is not None:
        flags["play"] = {"board": board}
    settings = load_config(config, environment=os.environ, flags=flags)
    raise typer.Exit(run_device(settings, config_file=config))
