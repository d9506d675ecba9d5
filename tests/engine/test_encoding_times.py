"""Times of codecs are measured once for a bundle, a runtime and a board, and never believed for others."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeexit.bundle import Bundle
from edgeexit.engine import encoding_times
from edgeexit.engine.encoding_times import remembered_encodings
from edgeexit.engine.encodings import CodecTime
from edgeexit.runner.packing import Packers, open_packing
from edgeexit.runner.selection import open_verified

pytestmark = pytest.mark.litert


def never() -> float:
    raise AssertionError("what is known is not measured")


def test_times_are_measured_once_for_a_bundle_a_runtime_and_a_board(
    packed_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, _ = open_verified(packed_bundle)
    packing = open_packing(packed_bundle, runner)
    cache = tmp_path / "state" / "codec_times.json"

    def times(clock: Callable[[], float], used: Packers = packing, threads: int = 1) -> tuple[CodecTime, ...]:
        return remembered_encodings(
            packed_bundle, runner, packing=used, threads=threads, clock=clock, cache=cache
        )

    def ticking(step_ms: int) -> Callable[[], float]:
        ticks = itertools.count(0, step_ms)
        return lambda: float(next(ticks))

    first = times(ticking(2))
    assert {each.encode_ms for each in first} == {2.0}
    assert times(never) == first
    assert [path.name for path in cache.parent.iterdir()] == ["codec_times.json"]

    assert {each.encode_ms for each in times(ticking(3), threads=2)} == {3.0}
    none = Packers(packed_bundle, {})
    assert {each.codec for each in times(ticking(4), used=none)} == {"raw", "u8", "f16"}
    monkeypatch.setattr(encoding_times, "machine_name", lambda: "another board")
    assert {each.encode_ms for each in times(ticking(5))} == {5.0}
    assert {each.encode_ms for each in times(never)} == {5.0}


@pytest.mark.parametrize(
    "change", [b"", b"{", b"null", lambda kept: kept.replace(b"2.0", b"-2.0"), lambda kept: kept[:-9]]
)
def test_a_damaged_file_is_measured_again(
    packed_bundle: Bundle, tmp_path: Path, change: bytes | Callable[[bytes], bytes]
) -> None:
    runner, _ = open_verified(packed_bundle)
    none, cache = Packers(packed_bundle, {}), tmp_path / "t.json"

    def times(step_ms: int) -> set[float]:
        ticks = itertools.count(0, step_ms)
        found = remembered_encodings(
            packed_bundle, runner, packing=none, threads=1, clock=lambda: float(next(ticks)), cache=cache
        )
        return {each.encode_ms for each in found}

    assert times(2) == {2.0}
    cache.write_bytes(change if isinstance(change, bytes) else change(cache.read_bytes()))
    assert times(3) == {3.0}
    cache.unlink()
    cache.mkdir()
    assert times(4) == {4.0}  # a place that cannot be written costs the memory alone
