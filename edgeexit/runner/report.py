"""What the selection of variants found on this machine, and its file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

# Raise it when the way of choosing changes: reports of another number are not reused.
SELECTION_SCHEMA = 2

# A report of 64 stages with 16 variants each is about 200 kB.
_REPORT_CAP_BYTES = 2**20


class VariantReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One variant of one stage, examined here.

    Units: max_abs_diff and tolerance, of the exit's output; agreement, fraction of golden vectors with
    the same label; best_ms and median_ms of one run. None: not known, because it did not come so far.
    """

    stage: int
    variant: str
    passed: bool
    why: str | None
    max_abs_diff: float | None
    tolerance: float | None
    agreement: float | None
    best_ms: float | None
    median_ms: float | None


class SelectionKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a selection holds for; for anything else it is made anew.

    `beside` is the runtime of ONNX variants, where TFLite ones have another.
    """

    schema: int
    bundle_digest: str
    runtime: str
    runtime_version: str
    machine: str
    threads: int
    first: int
    stop: int
    prefer: str | None
    beside: str | None = None


class SelectionReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The variants chosen for stages first … stop-1, with what was measured of each.

    `together` says that the stages of one file for all, made here of theirs, answered as they do.
    Units: elapsed_ms, what the examination took; median_ms, (stop - first,) of the chosen variants.
    """

    key: SelectionKey
    chosen: tuple[str, ...]
    median_ms: tuple[float, ...]
    variants: tuple[VariantReport, ...]
    elapsed_ms: float
    note: str | None = None
    together: bool = False

    def rejected(self) -> tuple[VariantReport, ...]:
        """Those that may not be used here, with their reasons."""
        return tuple(report for report in self.variants if not report.passed)


def read_report(path: Path, key: SelectionKey) -> SelectionReport | None:
    """The report kept at `path`, where it is sound and holds for `key`; else None."""
    try:
        report = msgspec.json.decode(read_kept(path), type=SelectionReport)
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    count = key.stop - key.first
    sound = len(report.chosen) == len(report.median_ms) == count and min(report.median_ms, default=0.0) >= 0.0
    return report if report.key == key and sound else None


def write_report(path: Path, report: SelectionReport) -> bool:
    """Keep a report; whether it could be kept. Without it the next start examines anew, no more."""
    return write_kept(path, msgspec.json.encode(report))


def read_kept(path: Path) -> bytes:
    """The beginning of a file of measurements, all of it where it is no larger than one can be.

    Raises: OSError.
    """
    with path.open("rb") as stream:
        return stream.read(_REPORT_CAP_BYTES)


def write_kept(path: Path, data: bytes) -> bool:
    """Keep measurements, whole or not at all; whether they could be kept."""
    return write_pieces(path, (data,))


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> bool:
    """Keep a file, whole or not at all; whether it could be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.writelines(pieces)
            Path(draft).replace(path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError:
        return False
    return True
