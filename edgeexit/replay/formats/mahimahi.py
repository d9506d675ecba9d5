"""mahimahi: one integer a line, the millisecond at which one 1500-byte packet may leave; it repeats."""

from __future__ import annotations

from io import StringIO

from edgeexit.errors import TraceError
from edgeexit.replay.formats.steps import Steps, checked_rate, checked_steps, number

# One line is one chance to send one full Ethernet packet.
PACKET_BYTES = 1500.0


def is_mahimahi(first_line: str) -> bool:
    """Whether a file that begins so is in this format: one field."""
    return len(first_line.split()) == 1


def read_mahimahi(text: str, *, file: str) -> Steps:
    """Packet chances as bytes per millisecond; the chances of millisecond t flow over (t-1, t].

    Raises: TraceError with file and line.
    """
    packets: dict[int, int] = {}
    before = 0
    for line, row in enumerate(StringIO(text), start=1):
        stamp = number(row.strip(), name="time stamp", file=file, line=line)
        if stamp != int(stamp):
            raise TraceError(f"time stamp {row.strip()} is not a whole millisecond", file=file, line=line)
        at_ms = int(stamp)
        if at_ms < before:
            raise TraceError(f"time stamp {at_ms} comes after {before}", file=file, line=line)
        packets[at_ms] = packets.get(at_ms, 0) + 1
        checked_rate(packets[at_ms] * PACKET_BYTES, file=file, line=line)
        before = at_ms
    if before == 0:
        raise TraceError("the last time stamp is 0, so the trace has no length", file=file)
    # The schedule repeats shifted by the last stamp, so millisecond 0 is also the end of the period.
    packets[before] += packets.pop(0, 0)
    edges_ms = [0.0]
    capacity_bytes: list[float] = []
    for at_ms, count in packets.items():
        if at_ms - 1 > edges_ms[-1]:
            edges_ms.append(float(at_ms - 1))
            capacity_bytes.append(0.0)
        edges_ms.append(float(at_ms))
        capacity_bytes.append(count * PACKET_BYTES)
    checked_steps(edges_ms, capacity_bytes, file=file)
    return Steps(tuple(edges_ms), tuple(capacity_bytes))
