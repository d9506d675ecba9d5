"""Where the board data lies: inside an installed wheel, or beside the package in a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from edgeexit.errors import DeviceError

try:
    # Python 3.10 has Traversable only here; the new home came with 3.11.
    from importlib.resources.abc import Traversable
except ImportError:  # pragma: no cover
    from importlib.abc import Traversable  # type: ignore[no-redef, attr-defined, unused-ignore]


def _roots() -> Iterator[Traversable]:
    """Places to look in, the installed one first."""
    # A checkout and an editable install have no such package: setup.py maps `devices/` to it only when a
    # wheel is built.
    with suppress(ModuleNotFoundError, TypeError):
        yield files("edgeexit.devices")
    yield Path(__file__).resolve().parents[2] / "devices"


def board_file(relative: str) -> Traversable:
    """A file or folder of the board data, such as `profiles/raspberry-pi-4.toml`.

    Raises: DeviceError when it is not shipped, or the name would leave the board data.
    """
    parts = relative.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise DeviceError(f"{relative!r} is refused", why="the name would leave the board data")
    for root in _roots():
        found = root
        for part in parts:
            found = found / part
        if found.is_file() or found.is_dir():
            return found
    raise DeviceError(
        f"{relative} is not part of this installation",
        why="no such file in the board data",
        fix="name a file of the devices folder, or install edgeexit again",
    )


def board_names() -> tuple[str, ...]:
    """Names of the boards that have a profile, in alphabetical order."""
    profiles = board_file("profiles").iterdir()
    return tuple(sorted(entry.name[: -len(".toml")] for entry in profiles if entry.name.endswith(".toml")))
