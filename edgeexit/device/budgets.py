"""Budgets from outside: a file that is read again when it changes, an MQTT message, and the one in force."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from edgeexit.board.settings import decode_settings, parse_toml
from edgeexit.decide.budget import Budget, BudgetSource
from edgeexit.errors import ConfigError

# A look at the file costs some microseconds; a budget that is five milliseconds old is new enough.
LOOK_EVERY_MS = 5.0

# File times on ext4 and tmpfs advance with the kernel's tick, 4 to 10 ms; several ticks to be sure.
YOUNG_FILE_S = 0.05

# A budget is three numbers.
LARGEST_BUDGET_BYTES = 4096


class BudgetTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A budget as people write it, in TOML or JSON."""

    latency_ms: float
    energy_mj: float | None = None
    uplink_bytes: int | None = None

    def budget(self, *, file: str | None = None, key: str = "latency_ms") -> Budget:
        """The budget. Raises: ConfigError for numbers that no budget can have."""
        for name, value in (("energy_mj", self.energy_mj), ("uplink_bytes", self.uplink_bytes)):
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(
                    f"{name} of {value} is refused",
                    file=file,
                    key=key.replace("latency_ms", name),
                    why="it must be zero or more, and finite",
                )
        try:
            return Budget(self.latency_ms, energy_mj=self.energy_mj, uplink_bytes=self.uplink_bytes)
        except ConfigError as error:
            raise ConfigError(error.what, file=file, key=key, why=error.why) from error


_json = msgspec.json.Decoder(BudgetTable)


def parse_json_budget(content: bytes, *, file: str) -> Budget:
    """A budget from JSON bytes. Raises: ConfigError for anything else; nothing large is allocated."""
    if len(content) > LARGEST_BUDGET_BYTES:
        raise ConfigError(
            f"{file}: budget is refused", file=file, why=f"{len(content)} bytes are too many for a budget"
        )
    try:
        table = _json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: budget is refused", file=file, why=str(error)) from error
    return table.budget(file=file)


def read_budget(path: Path) -> Budget:
    """The budget in a file: JSON where its name ends so, else TOML. Raises: ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BUDGET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"budget file {path} cannot be read", file=str(path), why=error.strerror) from error
    if path.suffix == ".json" or len(content) > LARGEST_BUDGET_BYTES:
        return parse_json_budget(content, file=str(path))
    return decode_settings(parse_toml(content, file=str(path)), BudgetTable, file=str(path)).budget(
        file=str(path)
    )


class FileBudget:
    """The budget in a file, read again when the file changes.

    Content that cannot be read leaves the last good budget in force; `trouble` is told once a change.
    Safe to ask from several threads: while one reads the file, the others get the budget before.
    Units: wall_s, wall time in seconds, as file times are.
    """

    def __init__(
        self,
        path: Path,
        *,
        trouble: Callable[[ConfigError], None],
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._trouble = trouble
        self._wall_s = wall_s
        self._reading = threading.Lock()
        self._value: Budget | None = None
        self._seen: tuple[int, int, int] | None = None
        self._told: str | None = None
        self._looked_ms = float("-inf")

    def open(self) -> None:
        """Read the first budget. Raises: ConfigError when there is none."""
        self._value = self._read()

    def budget(self, now_ms: float) -> Budget:
        """The budget in force."""
        if now_ms - self._looked_ms >= LOOK_EVERY_MS and self._reading.acquire(blocking=False):
            try:
                self._look(now_ms)
            finally:
                self._reading.release()
        if self._value is None:
            raise ConfigError(f"budget file {self._path} was not opened", file=str(self._path))
        return self._value

    def next_change_ms(self, now_ms: float) -> float:
        """When the file may be looked at again: nothing tells of its changes."""
        next_ms = self._looked_ms + LOOK_EVERY_MS
        return next_ms if next_ms > now_ms else now_ms + LOOK_EVERY_MS

    def listen(self, told: Callable[[], None] | None) -> None:
        """There is nothing to tell: a change is found by asking."""

    def _look(self, now_ms: float) -> None:
        self._looked_ms = now_ms
        try:
            if self._signature() != self._seen:
                self._value = self._read()
                self._told = None
        except ConfigError as error:
            if str(error) != self._told:
                self._told = str(error)
                self._trouble(error)

    def _read(self) -> Budget:
        signature = self._signature()
        budget = read_budget(self._path)
        # File times advance in steps: a file this young may change again without showing it.
        young = self._wall_s() - signature[0] / 1e9 < YOUNG_FILE_S
        self._seen = None if young else signature
        return budget

    def _signature(self) -> tuple[int, int, int]:
        """What changes when the file does. Raises: ConfigError while there is no plain file."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigError(
                f"budget file {self._path} cannot be read", file=str(self._path), why=error.strerror
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(
                f"budget file {self._path} cannot be read", file=str(self._path), why="it is no plain file"
            )
        return (found.st_mtime_ns, found.st_size, found.st_ino)


class BudgetInForce:
    """The budget source of the engine: can be replaced while running, and cut when the device stops.

    After `stop_by`, no frame may be answered later than that moment, whatever its budget was.
    """

    def __init__(self, source: BudgetSource) -> None:
        self._source = source
        self._captured_ms = float("-inf")
        self._stop_by_ms: float | None = None
        self._told: Callable[[], None] | None = None

    def replace(self, source: BudgetSource) -> None:
        """Take budgets from another source from now on."""
        self._source.listen(None)
        self._source = source
        source.listen(self._told)
        self._tell()

    def begin(self, captured_ms: float) -> None:
        """Say when the frame in hand was captured."""
        self._captured_ms = captured_ms

    def stop_by(self, at_ms: float) -> None:
        """Let the frame in hand be answered by this time at the latest; safe in a signal handler."""
        self._stop_by_ms = at_ms
        self._tell()

    def next_change_ms(self, now_ms: float) -> float:
        """When the source in force changes by itself."""
        return self._source.next_change_ms(now_ms)

    def listen(self, told: Callable[[], None] | None) -> None:
        """Call `told` when the source tells, is replaced, or is cut."""
        self._told = told
        self._source.listen(told)

    def _tell(self) -> None:
        told = self._told
        if told is not None:
            told()

    def budget(self, now_ms: float) -> Budget:
        """The budget in force."""
        budget = self._source.budget(now_ms)
        if self._stop_by_ms is None:
            return budget
        # A budget must be positive; a frame that is already overdue is answered at once with any.
        left_ms = max(1.0, self._stop_by_ms - self._captured_ms)
        return budget if budget.latency_ms <= left_ms else replace(budget, latency_ms=left_ms)
