"""How the command line speaks: results as text or JSON, errors as what, why and how to fix it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from edgeexit.errors import (
    BrokerError,
    BundleError,
    ConfigError,
    DataError,
    DeployError,
    EdgeExitError,
    MissingExtra,
    MissingProgram,
    OffloadError,
    TraceError,
    VariantRejected,
)

P = ParamSpec("P")

# Exit codes, as scripts read them: 1 a check failed, 2 used wrongly, 3 unreachable, 4 not verified.
_EXIT_CODES: tuple[tuple[type[EdgeExitError], int], ...] = (
    (BundleError, 4),
    (VariantRejected, 4),
    (BrokerError, 3),
    (DeployError, 3),
    (OffloadError, 3),
    (ConfigError, 2),
    (DataError, 2),
    (TraceError, 2),
    (MissingExtra, 2),
    (MissingProgram, 2),
)


def exit_code(error: EdgeExitError) -> int:
    """The process exit code that stands for this error."""
    for kind, code in _EXIT_CODES:
        if isinstance(error, kind):
            return code
    return 1


def show_error(error: EdgeExitError, *, as_json: bool) -> None:
    """Print an error to standard error: what, why, how to fix it."""
    if as_json:
        fields = {"error": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}
        print(json.dumps(fields), file=sys.stderr)  # noqa: T201
        return
    typer.secho(f"error: {error.what}", err=True, fg="red", bold=True)
    if error.why is not None:
        typer.echo(f"  why: {error.why}", err=True)
    if error.fix is not None:
        typer.echo(f"  fix: {error.fix}", err=True)


def command(run: Callable[P, None]) -> Callable[P, None]:
    """A command whose EdgeExitErrors end as sentences and exit codes, never as tracebacks."""

    @wraps(run)
    def shown(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
        except EdgeExitError as error:
            show_error(error, as_json=bool(kwargs.get("as_json", False)))
            raise typer.Exit(exit_code(error)) from None

    return shown


def show_json(text: bytes) -> None:
    """Print one JSON document, encoded already, on a line of its own."""
    typer.echo(text.decode("utf-8"))
