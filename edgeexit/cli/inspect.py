"""`edgeexit inspect`: what a bundle is, verified whole before anything is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeexit.cli.present import command, show_json


@command
def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print digest and manifest as JSON.")] = False,
) -> None:
    """Verify a bundle and show its stages, exits, boundaries and guarantees."""
    from edgeexit.bundle.store import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        import msgspec

        show_json(msgspec.json.encode({"digest": opened.digest, "manifest": opened.manifest}))
        return

    from rich.console import Console

    from edgeexit.cli.bundle_tables import tables

    console = Console()
    for table in tables(opened):
        console.print(table)
