"""Where a passphrase comes from: a file, the environment, or somebody at a terminal; never a command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeexit.errors import KeyFileError

if TYPE_CHECKING:
    from edgeexit.bundle.secret_key import SecretKey

# Arguments are seen by everybody on a machine, in `ps` and in histories; these two are not.
ENVIRONMENT = "EDGEEXIT_KEY_PASSPHRASE"
_CAP_BYTES = 4096


def read_passphrase(file: Path | None, *, what: str, twice: bool) -> str:
    """The passphrase: the first line of the file, else the environment's, else asked for at the terminal.

    Raises: KeyFileError where it comes from nowhere, is empty, or is typed in two ways.
    """
    if file is not None:
        with file.open("rb") as stream:
            text = stream.read(_CAP_BYTES).decode("utf-8", "replace").partition("\n")[0].rstrip("\r")
    elif ENVIRONMENT in os.environ:
        text = os.environ[ENVIRONMENT]
    elif sys.stdin.isatty():
        text = typer.prompt(f"Passphrase of {what}", hide_input=True, err=True)
        if twice and text != typer.prompt("Once more", hide_input=True, err=True):
            raise KeyFileError(
                "the two passphrases differ",
                file=what,
                why="one of them was mistyped; nothing was written",
                fix="try again",
            )
    else:
        raise KeyFileError(
            f"{what} needs a passphrase",
            file=what,
            why="there is no terminal to ask at",
            fix=f"give --passphrase-file, or set {ENVIRONMENT}",
        )
    if not text:
        raise KeyFileError(
            f"{what} needs a passphrase",
            file=what,
            why="the one given is empty",
            fix=f"give another one: typed, by --passphrase-file, or in {ENVIRONMENT}",
        )
    return text


def read_secret_key(path: Path, passphrase_file: Path | None) -> SecretKey:
    """A secret key, unlocked where it is locked. Raises: KeyFileError, MissingExtra."""
    from edgeexit.bundle.secret_key import is_locked, parse_secret_key, read_key_text

    text, name = read_key_text(path), str(path)
    locked = is_locked(text, file=name)
    passphrase = read_passphrase(passphrase_file, what=name, twice=False) if locked else None
    return parse_secret_key(text, passphrase, file=name)
