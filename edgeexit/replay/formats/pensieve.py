"""pensieve: "seconds Mbit/s" a line, uneven steps; the rate of a line holds since the line before."""

from __future__ import annotations

from io import StringIO

from edgeexit.errors import TraceError
from edgeexit.replay.formats.steps import Steps, checked_rate, checked_steps, number

# 1 Mbit/s is 125,000 bytes a second.
BYTES_PER_MS_PER_MBPS = 125.0


def is_pensieve(first_line: str) -> bool:
    """Whether a file that begins so is in this format: two fields."""
    return len(first_line.split()) == 2


def read_pensieve(text: str, *, file: str) -> Steps:
    """The first line only marks the start, whatever its time. Raises: TraceError with file and line."""
    edges_ms: list[float] = []
    capacity_bytes: list[float] = []
    origin_s = 0.0
    for line, row in enumerate(StringIO(text), start=1):
        fields = row.split()
        if len(fields) != 2:
            raise TraceError(
                f"{len(fields)} fields, 2 are expected: seconds and Mbit/s", file=file, line=line
            )
        at_s = number(fields[0], name="time", file=file, line=line)
        rate_mbps = number(fields[1], name="bandwidth", file=file, line=line)
        rate = checked_rate(rate_mbps * BYTES_PER_MS_PER_MBPS, file=file, line=line)
        if not edges_ms:
            origin_s = at_s
            edges_ms.append(0.0)
            continue
        at_ms = (at_s - origin_s) * 1000.0
        if at_ms < edges_ms[-1]:
            raise TraceError(f"time {fields[0]} s lies before the line above", file=file, line=line)
        if at_ms == edges_ms[-1]:
            continue  # published traces repeat a second here and there; such a rate holds for no time
        capacity_bytes.append(rate * (at_ms - edges_ms[-1]))
        edges_ms.append(at_ms)
    if not capacity_bytes:
        raise TraceError("no time passes; a trace needs two different times", file=file)
    checked_steps(edges_ms, capacity_bytes, file=file)
    return Steps(tuple(edges_ms), tuple(capacity_bytes))
