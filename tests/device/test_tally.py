from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.answer import Answer, Drop, OffloadOutcome, OffloadRecord, Place, Record
from edgeexit.device.tally import Tally

ANSWER = Answer(
    frame=0,
    source="a.png",
    label=1,
    score=0.9,
    quality=0.9,
    output=(0.0, 1.0),
    exit=2,
    place=Place.DEVICE,
    captured_ms=0.0,
    latency_ms=40.0,
    deadline_ms=50.0,
    reason="last-exit",
    stages_run=3,
    offloads=0,
    uplink_bytes=0,
    link_up=None,
    decision_us=(10.0,),
)
OFFLOAD = OffloadRecord(
    frame=0,
    boundary=0,
    codec="u8",
    uplink_bytes=900,
    outcome=OffloadOutcome.LATE,
    reason="after-deadline",
    elapsed_ms=80.0,
)


def test_what_became_of_frames_is_counted() -> None:
    tally = Tally()
    records: list[Record] = [
        ANSWER,
        replace(ANSWER, latency_ms=60.0, place=Place.GATEWAY, exit=3),
        Drop(frame=2, source="b.png", captured_ms=0.0, reason="replaced"),
        OFFLOAD,
    ]
    for record in records:
        tally.add(record)
    counts = tally.counts()
    assert (counts.answered, counts.late, counts.dropped) == (2, 1, 1)
    assert counts.exits == {"2/device": 1, "3/gateway": 1}
    assert counts.drops == {"replaced": 1}
    assert counts.offloads == {"late": 1}
    assert counts.uplink_bytes == 900
    line = str(counts)
    assert "answered 2 (late 1" in line
    assert "replaced 1" in line


def test_nothing_is_known_of_latency_before_the_first_answer() -> None:
    counts = Tally().counts()
    assert counts.latency is None
    assert "answered 0" in str(counts)


@given(latency_ms=st.lists(st.floats(min_value=0.1, max_value=1e4), min_size=1, max_size=300))
def test_percentiles_are_measured_values_in_order(latency_ms: list[float]) -> None:
    tally = Tally()
    for each in latency_ms:
        tally.add(replace(ANSWER, latency_ms=each))
    found = tally.counts().latency
    assert found is not None
    assert found.p50_ms <= found.p95_ms <= found.p99_ms
    assert {found.p50_ms, found.p95_ms, found.p99_ms} <= set(latency_ms)
    below = sum(each <= found.p50_ms for each in latency_ms)
    assert below * 2 >= len(latency_ms)
