"""What the device writes about its work: one JSON object a line, its kind in the field `type`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import msgspec

from edgeexit.board.readings import Readings
from edgeexit.decide.answer import Answer, Drop, OffloadRecord
from edgeexit.decide.drift import DriftState
from edgeexit.errors import DataError


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first record of a run: what was run, where.

    `stage_ms` are the stage times measured at start, those of the played board where one is played.
    Units: started_ms on the clock of all records of this run; unix_s, wall time.
    """

    device: str
    bundle: str
    bundle_digest: str
    variants: tuple[str, ...]
    stage_ms: tuple[float, ...]
    board: str
    played_board: str | None
    slowdown: float | None
    policy: str
    started_ms: float
    unix_s: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last record of a run that ended in order. Units: ended_ms on the run's clock."""

    answered: int
    dropped: int
    late: int
    records_lost: int
    ended_ms: float


@dataclass(frozen=True, slots=True)
class DriftFound:
    """Audits speak against the guarantee of early exits: its thresholds are tightened from now on.

    Units: at_ms on the run's clock; risk, fraction of these audits that differed; epsilon, what was
    promised. Shapes: thresholds (K,), those now in force.
    """

    at_ms: float
    state: DriftState
    audits: int
    disagreements: int
    risk: float
    epsilon: float
    thresholds: tuple[float, ...]


LogRecord = Answer | Drop | OffloadRecord | Readings | RunStarted | RunEnded | DriftFound

_TYPES: dict[str, type[LogRecord]] = {
    "answer": Answer,
    "drop": Drop,
    "offload": OffloadRecord,
    "board": Readings,
    "start": RunStarted,
    "end": RunEnded,
    "drift": DriftFound,
}
# What every line begins with.
LINE_START = b'{"type":"'

_TAGS: dict[type[LogRecord], bytes] = {
    kind: LINE_START + tag.encode() + b'",' for tag, kind in _TYPES.items()
}

# An answer of a thousand classes takes 20 kB; a line beyond a megabyte is not one of ours.
LARGEST_LINE_BYTES = 1 << 20


class _Tag(msgspec.Struct, frozen=True):
    type: str


_encoder = msgspec.json.Encoder()
_tag_decoder = msgspec.json.Decoder(_Tag)
_decoders = {tag: msgspec.json.Decoder(kind) for tag, kind in _TYPES.items()}


def encode_record(record: LogRecord) -> bytes:
    """The record as one line of JSON, newline included."""
    if isinstance(record, Answer):
        output = tuple(record.output)
        # JSON knows no infinity; logits that are none are worth nothing to a reader.
        record = replace(record, output=output if all(map(isfinite, output)) else ())
    return _TAGS[type(record)] + _encoder.encode(record)[1:] + b"\n"


def decode_record(line: bytes, *, place: str = "record") -> LogRecord:
    """The record in one line. Raises: DataError naming the place when it is none of ours."""
    if len(line) > LARGEST_LINE_BYTES:
        raise _not_a_record(place, f"line of {len(line)} bytes")
    try:
        decoder = _decoders.get(_tag_decoder.decode(line).type)
        if decoder is None:
            raise _not_a_record(place, "unknown type")
        record: LogRecord = decoder.decode(line)
        if isinstance(record, Answer):
            record = replace(record, output=tuple(record.output))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _not_a_record(place, str(error)) from error
    return record


def read_records(path: Path) -> Iterator[LogRecord]:
    """The records of a file, in order; a last line torn by a power cut is left out.

    Raises: DataError naming the line when the file cannot be read, or any other line is broken.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LARGEST_LINE_BYTES + 1):
                number += 1
                try:
                    record = decode_record(line, place=f"{path}:{number}")
                except DataError:
                    if not line.endswith(b"\n") and not file.read(1):
                        return  # torn off by a power cut
                    raise
                yield record
    except OSError as error:
        raise DataError(f"{path} cannot be read", file=str(path), why=error.strerror) from error


def _not_a_record(place: str, why: str) -> DataError:
    return DataError(f"{place}: not a record", file=place, why=why)
