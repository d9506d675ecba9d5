"""Network traces: files in three formats, told apart by content, read into one form.

`read_trace` gives a LinkTrace, which is immutable and says when bytes that start at some time are
through. An Uplink is one device's use of it: bytes queue first in, first out behind those in flight.
"""

from __future__ import annotations

from pathlib import Path

from edgeexit.errors import TraceError
from edgeexit.replay.capacity import Capacity
from edgeexit.replay.formats.mahimahi import is_mahimahi, read_mahimahi
from edgeexit.replay.formats.pensieve import is_pensieve, read_pensieve
from edgeexit.replay.formats.sabre import is_sabre, read_sabre
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.outages import Gaps

# The longest public trace seen is a few MB; this holds an hour of mahimahi stamps at 10 Mbit/s, and bounds
# what a hostile file can make us hold to some hundreds of MB.
FILE_CAP_BYTES = 32 * 2**20


class LinkTrace:
    """What a link can carry over time, repeating after its period.

    Units: scale, the factor by which every rate of the steps was multiplied (downlinks that stand for
    uplinks state it); latency_ms, constant latency that the format states, None where it states none.
    """

    __slots__ = ("_capacity", "latency_ms", "name", "scale")

    def __init__(self, name: str, steps: Steps, *, scale: float = 1.0) -> None:
        if not 0.0 < scale < float("inf"):
            raise TraceError(f"a scale of {scale} is refused", file=name, fix="use a positive factor")
        self.name = name
        self.scale = scale
        self.latency_ms = steps.latency_ms
        self._capacity = Capacity(steps.edges_ms, [carried * scale for carried in steps.capacity_bytes])

    @property
    def period_ms(self) -> float:
        """After how long the trace repeats."""
        return self._capacity.period_ms

    @property
    def mean_bps(self) -> float:
        """Mean rate over a period."""
        return self._capacity.mean_rate * 8000.0

    def carried_bytes(self, until_ms: float) -> float:
        """Bytes that the link could have carried from 0 to `until_ms`."""
        return self._capacity.flowed(until_ms)

    def transfer_ms(self, start_ms: float, payload_bytes: float) -> float:
        """When bytes that find the link free at `start_ms` are through."""
        return self._capacity.finish_ms(start_ms, payload_bytes)


class Uplink:
    """One device's link: bytes wait for those before them, and stand still while the link is gone.

    Units: offset_ms, where in the trace the device's time 0 lies; time_out_ms, bound of a transfer,
    waiting included.
    """

    __slots__ = ("_gaps", "_offset_ms", "_time_out_ms", "_trace", "free_ms")

    def __init__(
        self,
        trace: LinkTrace,
        *,
        offset_ms: float = 0.0,
        time_out_ms: float = 60_000.0,
        gaps: Gaps | None = None,
    ) -> None:
        self._trace = trace
        self._offset_ms = offset_ms
        self._time_out_ms = time_out_ms
        self._gaps = gaps or None
        self.free_ms = 0.0
        """When the bytes in flight are through."""

    def clear(self, now_ms: float) -> None:
        """Forget the bytes in flight: the connection that carried them is gone."""
        self.free_ms = now_ms

    def alone_ms(self, start_ms: float, payload_bytes: float) -> float:
        """When bytes would be through that find nothing in flight before them; nothing is sent."""
        if self._gaps is None:
            offset_ms = self._offset_ms
            return self._trace.transfer_ms(start_ms + offset_ms, payload_bytes) - offset_ms
        return self._gaps.finish_ms(
            start_ms, payload_bytes, finish=self._plain_finish_ms, flowed=self._plain_flowed
        )

    def transfer(self, start_ms: float, payload_bytes: float) -> float | None:
        """When bytes handed over at `start_ms` are through; None when that is beyond the time-out.

        Bytes that time out still hold the link until then.
        """
        begin_ms = self.free_ms if self.free_ms > start_ms else start_ms
        end_ms = self.alone_ms(begin_ms, payload_bytes)
        limit_ms = start_ms + self._time_out_ms
        if end_ms > limit_ms:
            self.free_ms = max(begin_ms, limit_ms)
            return None
        self.free_ms = end_ms
        return end_ms

    def _plain_finish_ms(self, start_ms: float, payload_bytes: float) -> float:
        return self._trace.transfer_ms(start_ms + self._offset_ms, payload_bytes) - self._offset_ms

    def _plain_flowed(self, until_ms: float) -> float:
        return self._trace.carried_bytes(until_ms + self._offset_ms)


def read_trace(path: Path, *, scale: float = 1.0) -> LinkTrace:
    """Read a trace file, its format told by its content.

    Units: scale multiplies every rate. Raises: TraceError with file and line.
    """
    file = str(path)
    text = _text(path)
    first = text.split("\n", 1)[0]
    if is_sabre(first):
        steps = read_sabre(text, file=file)
    elif is_mahimahi(first):
        steps = read_mahimahi(text, file=file)
    elif is_pensieve(first):
        steps = read_pensieve(text, file=file)
    else:
        raise TraceError(
            "neither mahimahi (one integer), pensieve (seconds Mbit/s) nor sabre (a JSON list)",
            file=file,
            line=1,
        )
    return LinkTrace(path.name, steps, scale=scale)


def trace_files(folder: Path) -> list[Path]:
    """Every file directly in a folder or one folder below, by name, that may be a trace (*.md are not).

    A single file is taken as it is. Raises: TraceError when there is none.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise TraceError("no such folder", file=str(folder))
    files = sorted(
        path
        for path in (*folder.glob("*"), *folder.glob("*/*"))
        if path.is_file() and path.suffix != ".md" and not path.name.startswith(".")
    )
    if not files:
        raise TraceError("the folder holds no trace", file=str(folder))
    return files


def read_traces(folder: Path, *, scale: float = 1.0) -> list[LinkTrace]:
    """Every trace of a folder, or the one of a file. Raises: TraceError, also when there is none."""
    return [read_trace(path, scale=scale) for path in trace_files(folder)]


def _text(path: Path) -> str:
    file = str(path)
    try:
        size_bytes = path.stat().st_size
        if size_bytes > FILE_CAP_BYTES:
            raise TraceError(f"{size_bytes} bytes, {FILE_CAP_BYTES} are allowed", file=file)
        with path.open("rb") as stream:
            content = stream.read(FILE_CAP_BYTES)
    except OSError as error:
        raise TraceError(error.strerror or str(error), file=file) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise TraceError("not a text file", file=file, line=line) from error
    text = text.rstrip()
    if not text:
        raise TraceError("the file is empty", file=file)
    return text
