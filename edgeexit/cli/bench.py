"""`edgeexit bench`: runs the benchmarks of a checkout, one process each; or times a bundle here."""

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
    on: Annotated[
        Path | None,
        typer.Option(help="A bundle: prove and time every variant of every stage on this machine instead."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="With --on: threads of the runtime.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="With --on: print the table as JSON.")] = False,
) -> None:
    """Run benchmarks; each prints one JSON object last and writes it to benchmarks/results/.

    With --on BUNDLE, none of them: which variants reproduce their golden vectors here, what a run takes,
    and which one serves each stage.
    """
    if on is not None:
        from edgeexit.cli.bench_bundle import bench_bundle

        if names:
            raise ConfigError(
                "--on times a bundle",
                key="names",
                why=f"{names[0]} is a benchmark",
                fix="leave one of the two out",
            )
        bench_bundle(on, threads=threads, as_json=as_json)
        return
    if as_json:
        raise ConfigError(
            "--json goes with --on",
            key="json",
            why="without --on benchmarks run, and each prints its JSON last",
            fix="leave --json out, or give --on BUNDLE",
        )
    files = [path.stem for path in folder.glob("*.py")]
    packages = [path.parent.name for path in folder.glob("*/__main__.py")]
    known = sorted(name for name in files + packages if name not in _SHARED and not name.startswith("_"))
    if not known:
        raise ConfigError(
            f"no benchmarks in {folder}",
            key="folder",
            why="there is no such folder, or no program in it; an installed edgeexit has none",
            fix="run this in a checkout, or name its folder",
        )
    wanted = names or known
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"there is no benchmark {name!r}",
                key="names",
                why=f"known: {', '.join(known)}",
                fix="choose a known one",
            )
    failed = []
    for name in wanted:
        typer.secho(f"== {name}", err=True, bold=True)
        done = subprocess.run([sys.executable, "-m", f"{folder.name}.{name}"], cwd=folder.parent, check=False)
        if done.returncode != 0:
            failed.append(name)
    if failed:
        typer.secho(f"failed: {', '.join(failed)}", err=True, fg="red")
        raise typer.Exit(1)
