"""`edgeexit bench`: runs the benchmarks of a checkout, one process each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgeexit.cli.present import command
from edgeexit.errors import ConfigError

# Modules of the folder that are no benchmarks of their own.
_SHARED = ("results",)


@command
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all without it.")] = None,
    folder: Annotated[Path, typer.Option(help="The benchmarks of the checkout.")] = Path("benchmarks"),
) -> None:
    """Run benchmarks; each prints one JSON object last and writes it to benchmarks/results/."""
    known = sorted(
        path.stem
        for path in folder.glob("*.py")
        if path.stem not in _SHARED and not path.stem.startswith("_")
    )
    if not known:
        raise ConfigError(
            f"no benchmarks in {folder}", key="folder", fix="run this in a checkout, or name its folder"
        )
    wanted = names or known
    for name in wanted:
        if name not in known:
            raise ConfigError(f"no benchmark {name}", key="names", fix=f"known: {', '.join(known)}")
    failed = []
    for name in wanted:
        typer.secho(f"== {name}", err=True, bold=True)
        done = subprocess.run([sys.executable, "-m", f"{folder.name}.{name}"], cwd=folder.parent, check=False)
        if done.returncode != 0:
            failed.append(name)
    if failed:
        typer.secho(f"failed: {', '.join(failed)}", err=True, fg="red")
        raise typer.Exit(1)
