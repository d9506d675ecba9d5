"""sabre: a JSON list of {duration_ms, bandwidth_kbps, latency_ms}; the periods follow each other."""

from __future__ import annotations

import json
from typing import NoReturn

from edgeexit.errors import TraceError
from edgeexit.replay.formats.steps import Steps, checked, checked_rate, checked_steps

# 1 kbit/s is 0.125 bytes a millisecond.
BYTES_PER_MS_PER_KBPS = 0.125
_BLANK = " \t\r\n"


def is_sabre(first_line: str) -> bool:
    """Whether a file that begins so is in this format: a JSON list."""
    return first_line.lstrip().startswith("[")


def read_sabre(text: str, *, file: str) -> Steps:
    """Periods of constant bandwidth, with the median of the stated latencies.

    Raises: TraceError with file and line.
    """
    edges_ms = [0.0]
    capacity_bytes: list[float] = []
    latencies_ms: list[float] = []
    for period, line in _items(text, file=file):
        if not isinstance(period, dict):
            raise TraceError("an entry is not an object", file=file, line=line)
        duration_ms = _field(period, "duration_ms", file=file, line=line)
        rate = _field(period, "bandwidth_kbps", file=file, line=line) * BYTES_PER_MS_PER_KBPS
        latencies_ms.append(_field(period, "latency_ms", file=file, line=line))
        if duration_ms == 0.0:
            raise TraceError("duration_ms is 0", file=file, line=line)
        capacity_bytes.append(checked_rate(rate, file=file, line=line) * duration_ms)
        edges_ms.append(edges_ms[-1] + duration_ms)
    if not capacity_bytes:
        raise TraceError("the list is empty", file=file)
    checked_steps(edges_ms, capacity_bytes, file=file)
    latencies_ms.sort()
    return Steps(tuple(edges_ms), tuple(capacity_bytes), latencies_ms[len(latencies_ms) // 2])


def _field(period: dict[str, object], name: str, *, file: str, line: int) -> float:
    value = period.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TraceError(f"{name} is missing or not a number", file=file, line=line)
    try:
        return checked(float(value), name=name, file=file, line=line)
    except OverflowError as error:
        raise TraceError(f"{name} is too large", file=file, line=line) from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _items(text: str, *, file: str) -> list[tuple[object, int]]:
    """The entries of the list, each with the line on which it begins."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    items: list[tuple[object, int]] = []
    at = _skip_blanks(text, text.index("[") + 1)
    line = 1 + text.count("\n", 0, at)
    if text[at : at + 1] == "]":
        return items
    while True:
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise TraceError(error.msg, file=file, line=error.lineno) from error
        except (ValueError, RecursionError) as error:
            raise TraceError(str(error) or "nested too deeply", file=file, line=line) from error
        items.append((value, line))
        end = _skip_blanks(text, end)
        mark = text[end : end + 1]
        line += text.count("\n", at, end)
        if mark == "]":
            if text[end + 1 :].strip(_BLANK):
                raise TraceError("text follows the end of the list", file=file, line=line)
            return items
        if mark != ",":
            raise TraceError("the list is cut off or a comma is missing", file=file, line=line)
        at = _skip_blanks(text, end + 1)
        line += text.count("\n", end, at)


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at
