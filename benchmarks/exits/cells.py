"""Finished pieces of a long run, each kept in a file of its own so that a killed run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from edgeexit.errors import DataError
from edgeexit.training.checkpoint import KEY_DIGITS, settings_key

T = TypeVar("T")

# A cell holds some dozen figures and a curve; nothing that this program wrote comes near it.
CELL_CAP_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Cells:
    """Where cells are kept. `say` tells what was done and what was found done."""

    folder: Path
    say: Callable[[str], None]

    def once(self, name: str, settings: list[object], kind: type[T], make: Callable[[], T]) -> T:
        """What `make` gave for these settings, now or in an earlier run. Raises: DataError."""
        path = self.path(name, settings)
        if path.is_file():
            return self._read(path, kind)
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(value))
        part.replace(path)
        spent = f"{time.process_time() - began_cpu_s:.0f} s of CPU, {time.monotonic() - began_s:.0f} s"
        self.say(f"{name}: {spent}")
        return value

    def path(self, name: str, settings: list[object]) -> Path:
        """Where the cell of these settings lies, or will."""
        return self.folder / f"{name}-{settings_key([name, *settings])[:KEY_DIGITS]}.json"

    def _read(self, path: Path, kind: type[T]) -> T:
        try:
            if path.stat().st_size > CELL_CAP_BYTES:
                raise ValueError(f"it has over {CELL_CAP_BYTES} bytes")
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (msgspec.MsgspecError, OSError, ValueError) as error:
            raise DataError(
                f"{path.name} is no usable result",
                file=str(path),
                why=str(error),
                fix="delete it; it is then made again",
            ) from error
