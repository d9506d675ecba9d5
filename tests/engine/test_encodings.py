"""Codecs timed on this machine: every one that can be made here, none that cannot."""

from __future__ import annotations

import itertools

import pytest

from edgeexit.bundle import Bundle
from edgeexit.engine import encodings
from edgeexit.engine.encodings import measure_encodings
from edgeexit.runner.packing import Packers, open_packing, open_unpacking
from edgeexit.runner.selection import open_verified

pytestmark = pytest.mark.litert


def test_every_codec_that_can_be_made_here_is_timed(packed_bundle: Bundle) -> None:
    runner, _ = open_verified(packed_bundle)
    ticks = itertools.count()
    packing, unpacking = open_packing(packed_bundle, runner), open_unpacking(packed_bundle, runner)
    times = measure_encodings(
        packed_bundle, runner, packing=packing, unpacking=unpacking, clock=lambda: float(next(ticks))
    )
    offered = [(b, c.codec) for b, each in enumerate(packed_bundle.manifest.boundaries) for c in each.codecs]
    assert [(each.boundary, each.codec) for each in times] == offered
    # The clock moves by one at every look: each run takes one tick.
    assert all(each.encode_ms == each.decode_ms == 1.0 for each in times)


def test_what_cannot_be_made_or_undone_here_has_no_time(
    packed_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, _ = open_verified(packed_bundle)
    none = Packers(packed_bundle, {})
    times = measure_encodings(packed_bundle, runner, packing=none, clock=lambda: 0.0)
    assert {each.codec for each in times} == {"raw", "u8", "f16"}
    packing = open_packing(packed_bundle, runner)
    monkeypatch.setattr(encodings, "abilities", lambda: frozenset[str]())
    times = measure_encodings(packed_bundle, runner, packing=packing, clock=lambda: 0.0)
    # Bottlenecks take half a byte a value.
    assert {each.codec: each.decode_ms for each in times if each.boundary == 1} == {
        "raw": 0.0,
        "f16": 0.0,
        "pool4-int8": None,
    }
