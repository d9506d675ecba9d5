"""Where training tells how it goes: JSON lines always, TensorBoard for those who want it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import msgspec

from edgeexit.errors import MissingExtra
from edgeexit.training.schedule import TrainingProgress


class _Writer(Protocol):
    def add_scalar(self, tag: str, value: float, step: int) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LogPlaces:
    """Where logs go. `tensorboard` is a folder; None writes none."""

    lines: Path
    tensorboard: Path | None = None


class TrainingLog:
    """Takes progress and writes it to its places; a run that goes on adds to what is there."""

    def __init__(self, places: LogPlaces) -> None:
        self._places = places
        self._writer: _Writer | None = None

    def __enter__(self) -> TrainingLog:
        """Raises: MissingExtra, OSError."""
        self._places.lines.parent.mkdir(parents=True, exist_ok=True)
        if self._places.tensorboard is not None:
            self._writer = _writer(self._places.tensorboard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def tell(self, progress: TrainingProgress) -> None:
        """Write one line. Raises: OSError."""
        with self._places.lines.open("ab") as file:
            file.write(msgspec.json.encode(progress) + b"\n")
        if self._writer is None:
            return
        self._writer.add_scalar("learning_rate", progress.learning_rate, progress.samples)
        for k, loss in enumerate(progress.losses):
            self._writer.add_scalar(f"loss/exit_{k}", loss, progress.samples)


def _writer(folder: Path) -> _Writer:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", extra="tensorboard", needed_for="logs for TensorBoard") from error
    make: Callable[[str], _Writer] = SummaryWriter
    return make(str(folder))
