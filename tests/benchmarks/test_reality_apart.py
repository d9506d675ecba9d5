"""Reality beside replay, frame by frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.reality.apart import apart
from edgeexit.decide.answer import Place
from edgeexit.errors import DataError
from edgeexit.replay.frames import FrameRow, RunRows
from edgeexit.replay.outcome import OffloadCount

OUTCOMES = st.tuples(
    st.one_of(st.none(), st.floats(1.0, 200.0)),
    st.sampled_from((0.0, 1.0)),
    st.integers(0, 2),
    st.sampled_from(tuple(Place)),
    st.sampled_from((0, 500)),
)


def run_of(outcomes: list[tuple[float | None, float, int, Place, int]], begin_ms: float) -> RunRows:
    rows = tuple(
        FrameRow(begin_ms + index, latency_ms, 100.0, worth, exit_, place, uplink_bytes=sent)
        if latency_ms is not None
        else FrameRow(begin_ms + index, None, None, None, None, None, dropped="replaced")
        for index, (latency_ms, worth, exit_, place, sent) in enumerate(outcomes)
    )
    return RunRows("run", rows, OffloadCount())


@given(pairs=st.lists(st.tuples(OUTCOMES, OUTCOMES, OUTCOMES), min_size=1, max_size=40))
def test_its_parts_sum_up_to_what_is_right_more_often_for_real(
    pairs: list[tuple[tuple[float | None, float, int, Place, int], ...]],
) -> None:
    real, *replays = (
        run_of([each[world] for each in pairs], begin_ms) for world, begin_ms in enumerate((7000.0, 0.0, 0.0))
    )
    found = apart(real, replays, really_from_ms=7000.0, replayed_from_ms=0.0)

    def right(run: RunRows) -> float:
        return 100.0 * sum(row.worth or 0.0 for row in run.rows if row.on_time) / len(run.rows)

    def sent(run: RunRows) -> float:
        return 100.0 * sum(row.uplink_bytes > 0 for row in run.rows) / len(run.rows)

    more = right(real) - sum(map(right, replays)) / 2
    parts = found.right_by_lateness + found.right_by_exit + found.right_by_answer
    assert parts == pytest.approx(more, abs=0.02)  # three rounded figures
    more_sent = sent(real) - sum(map(sent, replays)) / 2
    assert found.sent_really_only - found.sent_replayed_only == pytest.approx(more_sent, abs=0.02)


def test_a_run_is_not_apart_from_itself_and_other_frames_are_refused() -> None:
    run = run_of([(50.0, 1.0, 2, Place.GATEWAY, 500), (150.0, 1.0, 0, Place.DEVICE, 0)], 0.0)
    found = apart(run, [run], really_from_ms=0.0, replayed_from_ms=0.0)
    assert set(vars_of(found)) == {0.0}
    with pytest.raises(DataError, match="different frames"):
        apart(run, [RunRows("run", run.rows[:1], OffloadCount())], really_from_ms=0.0, replayed_from_ms=0.0)


def vars_of(found: object) -> list[float]:
    return [getattr(found, name) for name in type(found).__slots__]  # type: ignore[attr-defined]
