"""How the command line speaks: results as text or JSON, errors as what, why and how to fix it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from edgeexit.cli.advice import way_out
from edgeexit.errors import (
    BrokerError,
    BundleError,
    ConfigError,
    DataError,
    DeployError,
    EdgeExitError,
    KeyFileError,
    MissingExtra,
    MissingProgram,
    OffloadError,
    TraceError,
    UnsupportedModel,
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
    (KeyFileError, 2),
    (TraceError, 2),
    (UnsupportedModel, 2),
    (MissingExtra, 2),
    (MissingProgram, 2),
)


# What the system refuses is mostly a path that was given: as with an option or a file that is wrong.
_USED_WRONGLY = 2
# As other programs whose output nobody reads to its end.
_READER_LEFT = 1
_STANDARD_OUTPUT = 1
# Ended by Ctrl-C: 128 and the number of the signal, as shells have it.
INTERRUPTED = 130

# Which extra brings a package that is imported without asking first; the base install for all others.
_EXTRA_OF = {
    "torch": "convert",
    "litert_torch": "convert",
    "ai_edge_quantizer": "convert",
    "ai_edge_litert": "device",
    "safetensors": "device",
    "cryptography": "trust",
    "psutil": "device",
    "paho": "device",
    "PIL": "device",
    "torchvision": "models",
    "asyncssh": "deploy",
    "matplotlib": "report",
    "cv2": "video",
    "iotcore": "broker",
}


def exit_code(error: EdgeExitError) -> int:
    """The process exit code that stands for this error."""
    for kind, code in _EXIT_CODES:
        if isinstance(error, kind):
            return code
    return 1


def show_error(error: EdgeExitError, *, as_json: bool) -> None:
    """Print an error to standard error: what, why, how to fix it."""
    if as_json:
        fields = {"error": type(error).__name__, "what": error.what, "why": error.why, "fix": way_out(error)}
        print(json.dumps(fields), file=sys.stderr)  # noqa: T201
        return
    typer.secho(f"error: {error.what}", err=True, fg="red", bold=True)
    if error.why is not None:
        typer.echo(f"  why: {error.why}", err=True)
    fix = way_out(error)
    if fix is not None:
        typer.echo(f"  fix: {fix}", err=True)


def command(run: Callable[P, None]) -> Callable[P, None]:
    """A command whose failures end as sentences and exit codes, never as tracebacks."""

    @wraps(run)
    def shown(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json", False))
        code = ended(lambda: run(*args, **kwargs), name=f"edgeexit {run.__name__}", as_json=as_json)
        if code != 0:
            raise typer.Exit(code)

    return shown


def ended(run: Callable[[], None], *, name: str, as_json: bool = False) -> int:
    """Run a program's work and say how it failed, if it did; its exit code.

    What is translated: EdgeExitErrors, packages that are not installed, files that the system refuses,
    a reader that has left, and Ctrl-C.
    """
    try:
        run()
    except EdgeExitError as error:
        show_error(error, as_json=as_json)
        return exit_code(error)
    except ModuleNotFoundError as error:
        missing = _missing_extra(error, name)
        if missing is None:
            raise
        show_error(missing, as_json=as_json)
        return exit_code(missing)
    except BrokenPipeError:
        # The reader has what it wanted. What is still to be flushed at the end has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STANDARD_OUTPUT)
        return _READER_LEFT
    except OSError as error:
        show_error(_refused_by_system(error), as_json=as_json)
        return _USED_WRONGLY
    except KeyboardInterrupt:
        typer.secho("interrupted", err=True)
        return INTERRUPTED
    return 0


def _missing_extra(error: ModuleNotFoundError, name: str) -> MissingExtra | None:
    """The extra that brings a package; None where the package is none that an extra brings."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRA_OF:
        return None
    return MissingExtra(package, extra=_EXTRA_OF[package], needed_for=name)


def _refused_by_system(error: OSError) -> EdgeExitError:
    """A full disk, a folder without permission, a file where a folder is wanted."""
    place = error.filename if isinstance(error.filename, str) else "a file or socket"
    refused = EdgeExitError(f"{place} cannot be used", why=error.strerror or str(error))
    refused.__cause__ = error
    return refused


def show_json(text: bytes) -> None:
    """Print one JSON document, encoded already, on a line of its own."""
    typer.echo(text.decode("utf-8"))
