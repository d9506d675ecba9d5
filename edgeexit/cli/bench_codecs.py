"""What each way of sending a boundary takes on this machine, as rows and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.table import Table

    from edgeexit.bundle.store import Bundle


class CodecRow(msgspec.Struct, frozen=True, kw_only=True):
    """One codec of one boundary. Units: bytes and quality_cost as the bundle states them; medians in ms.

    None: this machine cannot make it, or cannot undo it.
    """

    boundary: int
    codec: str
    payload_bytes: int
    quality_cost: float
    encode_ms: float | None
    decode_ms: float | None


def time_codecs(bundle: Bundle, chosen: Sequence[str], *, threads: int) -> tuple[CodecRow, ...]:
    """Every codec of a bundle whose stages run here in the variants `chosen`.

    Raises: RunnerError, BundleError, MissingExtra.
    """
    from edgeexit.engine.encodings import measure_encodings
    from edgeexit.runner.litert import LiteRTRunner, find_variant
    from edgeexit.runner.loading import find_runtimes
    from edgeexit.runner.packing import open_packing, open_unpacking
    from edgeexit.runner.selection import monotonic_ms

    runtimes = find_runtimes(bundle.manifest)
    loaded = [
        runtimes.load(bundle, stage, find_variant(bundle.manifest, stage, name), threads=threads)
        for stage, name in enumerate(chosen)
    ]
    runner = LiteRTRunner.of_loaded(bundle, loaded, threads=threads)
    times = measure_encodings(
        bundle,
        runner,
        packing=open_packing(bundle, runner, threads=threads),
        unpacking=open_unpacking(bundle, runner, threads=threads),
        clock=monotonic_ms,
    )
    runner.close()
    found = {(each.boundary, each.codec): each for each in times}
    rows = []
    for index, boundary in enumerate(bundle.manifest.boundaries):
        for codec in boundary.codecs:
            timed = found.get((index, codec.codec))
            rows.append(
                CodecRow(
                    boundary=index,
                    codec=codec.codec,
                    payload_bytes=codec.payload_bytes,
                    quality_cost=codec.quality_cost,
                    encode_ms=None if timed is None else timed.encode_ms,
                    decode_ms=None if timed is None else timed.decode_ms,
                )
            )
    return tuple(rows)


def rendered(rows: Sequence[CodecRow]) -> Table:
    """The rows as a table."""
    from rich.table import Table

    table = Table(title="what sending a boundary takes here, beside what it costs anywhere")
    for column in ("boundary", "codec", "bytes", "quality cost", "encode ms", "decode ms"):
        table.add_column(column, justify="left" if column == "codec" else "right")
    for row in rows:
        table.add_row(
            str(row.boundary),
            row.codec,
            f"{row.payload_bytes:,}",
            f"{row.quality_cost:.4f}",
            "" if row.encode_ms is None else f"{row.encode_ms:.3f}",
            "" if row.decode_ms is None else f"{row.decode_ms:.3f}",
        )
    return table
