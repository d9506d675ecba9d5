"""The reality check's arithmetic: links, delays, budgets, retransmission, comparison. No root needed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.reality.compare import SHARE_POINTS, Figures, compare, figures_of, worst_points
from benchmarks.reality.noting import FrameNotes
from benchmarks.reality.page import BEGIN, END, PAGE, replaced
from benchmarks.reality.plan import BUDGET_FACTORS, BUSY, CUT, Pace, write_mobile, write_steady
from benchmarks.reality.real_run import RealRun
from benchmarks.reality.shaper import Stats
from benchmarks.reality.shaping import (
    QUEUE_BYTES,
    RETRANSMISSION_MS,
    Counted,
    Delays,
    Link,
    Way,
    constant,
    next_retransmission_ms,
    stall_ms,
)
from benchmarks.reality.stages import own_service
from benchmarks.reality.subjects import Kind
from edgeexit.decide.answer import Answer, Place
from edgeexit.decide.decision import OffloadOption
from edgeexit.decide.learner import Failed, Observation, Replied
from edgeexit.device.records import RunStarted
from edgeexit.errors import DataError
from edgeexit.replay.frames import FrameRow, RunRows
from edgeexit.replay.outcome import OffloadCount
from edgeexit.replay.traces import read_trace

PACKETS = st.lists(
    st.tuples(st.floats(0.0, 50.0), st.integers(40, 1500)), min_size=1, max_size=60
)  # pause before it in ms, size in bytes


def link(mbps: float, *, delay_ms: float = 0.0, jitter_ms: float = 0.0, queue: int = QUEUE_BYTES) -> Link:
    def way(seed: int) -> Way:
        return Way(constant(mbps), Delays(delay_ms, jitter_ms, seed), queue)

    return Link((way(1), way(2)))


def arrivals(through: Link, until_ms: float = 1e9) -> list[tuple[float, bytes]]:
    found: list[tuple[float, bytes]] = []
    while (due := through.take(until_ms)) is not None:
        found.append((due[0], due[2]))
    return found


@given(packets=PACKETS, mbps=st.floats(0.1, 50.0), delay=st.floats(0.0, 40.0), jitter=st.floats(0.0, 20.0))
def test_packets_keep_their_order_and_arrive_no_sooner_than_the_link_allows(
    packets: list[tuple[float, int]], mbps: float, delay: float, jitter: float
) -> None:
    through = link(mbps, delay_ms=delay, jitter_ms=jitter, queue=10**9)
    now_ms, sent = 0.0, []
    for index, (pause_ms, size) in enumerate(packets):
        now_ms += pause_ms
        packet = index.to_bytes(4, "big") + bytes(size - 4)
        through.offer(now_ms, 0, packet)
        sent.append((now_ms, packet))
    got = arrivals(through)
    assert [packet for _, packet in got] == [packet for _, packet in sent]
    for (sent_ms, packet), (due_ms, _) in zip(sent, got, strict=True):
        assert due_ms >= sent_ms + delay + len(packet) * 8e-3 / mbps - 1e-6
    assert all(earlier[0] <= later[0] for earlier, later in pairwise(got))
    total = sum(len(packet) for _, packet in sent)
    assert got[-1][0] >= sent[0][0] + total * 8e-3 / mbps + delay - 1e-6


def test_a_full_queue_drops_what_comes_and_carries_what_waits() -> None:
    through = link(1.0, queue=3000)
    for _ in range(5):
        through.offer(0.0, 0, bytes(1000))
    assert through.counted[0].packets == 3
    assert through.counted[0].dropped == 2
    # A kilobyte at 1 Mbit/s takes 8 ms: then there is room again.
    through.offer(8.0, 0, bytes(1000))
    assert through.counted[0].packets == 4
    assert len(arrivals(through)) == 4


def test_a_cut_passes_nothing_and_forgets_what_was_on_its_way() -> None:
    through = link(1.0, delay_ms=10.0)
    through.offer(0.0, 0, bytes(1000))
    through.set_cut(5.0, True)
    through.offer(6.0, 0, bytes(1000))
    through.offer(6.0, 1, bytes(1000))
    assert through.next_ms is None
    assert (through.counted[0].lost, through.counted[1].lost) == (2, 1)
    through.set_cut(20.0, False)
    through.offer(20.0, 0, bytes(1000))
    assert [due_ms for due_ms, _ in arrivals(through)] == [pytest.approx(38.0)]


def test_both_directions_have_a_bottleneck_of_their_own() -> None:
    through = link(1.0)
    through.offer(0.0, 0, bytes(1000))
    through.offer(0.0, 1, bytes(1000))
    assert [due_ms for due_ms, _ in arrivals(through)] == [pytest.approx(8.0)] * 2


def test_delays_are_the_same_for_the_same_seed_and_never_below_the_delay() -> None:
    one, same, other = Delays(8.0, 3.0, 1), Delays(8.0, 3.0, 1), Delays(8.0, 3.0, 2)
    at_ms = [50.0 * index for index in range(500)]
    drawn = [one.at(each) for each in at_ms]
    assert drawn == [same.at(each) for each in at_ms]
    assert drawn != [other.at(each) for each in at_ms]
    assert min(drawn) >= 8.0
    assert max(drawn) <= 8.0 + 4.0 * 3.0


def test_links_made_here_are_traces_that_repeat_by_seed(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    write_mobile(one, median_mbps=2.0, seconds=60.0, seed=1)
    write_mobile(same, median_mbps=2.0, seconds=60.0, seed=1)
    write_mobile(other, median_mbps=2.0, seconds=60.0, seed=2)
    assert one.read_text() == same.read_text() != other.read_text()
    trace = read_trace(one)
    assert trace.period_ms >= 60_000.0
    assert 0.5e6 < trace.mean_bps < 8e6
    write_steady(same, mbps=3.0)
    assert read_trace(same).mean_bps == pytest.approx(3e6)


@pytest.mark.parametrize("kind", list(Kind))
def test_budgets_go_from_a_third_of_the_full_local_time_to_far_beyond_it(kind: Kind) -> None:
    pace = Pace(kind, 100.0)
    assert min(BUDGET_FACTORS[kind]) >= 0.3
    assert max(BUDGET_FACTORS[kind]) >= 1.5
    assert [latency_ms for _, latency_ms in pace.budgets] == [100.0 * each for each in BUDGET_FACTORS[kind]]
    assert pace.period_ms > pace.full_ms
    for begin, end in (CUT, *BUSY):
        assert 0.0 < begin < end < 1.0


@given(lost=st.floats(0.0, 1e5), cut=st.floats(0.0, 20_000.0))
def test_tcp_sends_again_after_the_link_is_back_at_most_twice_as_late_as_it_was_gone(
    lost: float, cut: float
) -> None:
    again_ms = next_retransmission_ms(lost, lost + cut)
    assert again_ms >= lost + cut
    assert again_ms - lost <= 2.0 * cut + RETRANSMISSION_MS + 1e-6


def test_a_first_window_of_ten_segments_stalls_until_its_acknowledgements_come() -> None:
    assert stall_ms(10, segment_ms=1.0, rtt_ms=20.0) == 0.0
    # Ten segments leave in 10 ms, the first is acknowledged after 21.
    assert stall_ms(30, segment_ms=1.0, rtt_ms=20.0) == 11.0
    # The second window of twenty stalls for a millisecond more.
    assert stall_ms(31, segment_ms=1.0, rtt_ms=20.0) == 12.0
    assert stall_ms(1000, segment_ms=3.0, rtt_ms=20.0) == 0.0


def row(captured_ms: float, latency_ms: float | None, place: Place | None, worth: float) -> FrameRow:
    exit_ = None if place is None else 3
    dropped = "replaced" if place is None else None
    return FrameRow(captured_ms, latency_ms, 100.0, worth, exit_, place, uplink_bytes=500, dropped=dropped)


ROWS = (
    row(0.0, 500.0, Place.DEVICE, 0.0),
    row(1000.0, 50.0, Place.DEVICE, 1.0),
    row(2000.0, 60.0, Place.GATEWAY, 1.0),
    row(3000.0, 200.0, Place.GATEWAY, 1.0),
    row(4000.0, None, None, 0.0),
)
RUN = RunRows("real", ROWS, OffloadCount(sent=4, used=2, late=1, failed=1))


def test_figures_leave_out_the_frames_before_counting_began() -> None:
    found = figures_of(RUN, counted_ms=1000.0)
    assert found.frames == 4
    assert found.on_time_fraction == 0.5
    assert found.correct_by_deadline_fraction == 0.5
    assert found.shares == {"device/3": 0.25, "dropped/replaced": 0.25, "gateway/3": 0.5}
    assert found.gateway_fraction == 0.5
    assert found.offloaded_fraction == 1.0
    assert list(found.latency_ms) == sorted(found.latency_ms)


def test_runs_pooled_count_like_one_of_them() -> None:
    twice = RunRows("two", ROWS + ROWS, OffloadCount())
    pooled, one = figures_of(twice, counted_ms=0.0, runs=2), figures_of(RUN, counted_ms=0.0)
    # Percentiles of few values are interpolated between other neighbours.
    same = replace(pooled, latency_p95_ms=one.latency_p95_ms, latency_ms=one.latency_ms)
    assert same == one


def test_a_run_agrees_with_itself_and_not_with_one_far_away() -> None:
    found = figures_of(RUN, counted_ms=0.0)
    same = compare(found, found, [found])
    assert worst_points(same) == 0.0
    assert all(each.agrees for each in same)
    far = replace(found, correct_by_deadline_fraction=0.1, shares={"device/0": 1.0})
    apart = {each.figure.partition(" at ")[0]: each for each in compare(found, far, [far])}
    assert apart["right by the deadline"].difference == pytest.approx(30.0)
    assert not apart["right by the deadline"].agrees
    assert apart["answered"].difference == 100.0
    assert apart["answered"].bound == SHARE_POINTS
    assert not apart["answered"].agrees
    assert apart["on time"].agrees


def test_a_run_among_its_replays_agrees_however_far_they_are_apart() -> None:
    found = figures_of(RUN, counted_ms=0.0)
    low, high = replace(found, offloaded_fraction=0.0), replace(found, offloaded_fraction=1.0)
    between = {each.figure: each for each in compare(found, high, [low, high])}["offloaded"]
    assert (between.low, between.high, between.difference) == (0.0, 100.0, 0.0)
    beyond = {each.figure: each for each in compare(high, low, [low, low])}["offloaded"]
    assert beyond.difference == 100.0
    assert not beyond.agrees


@given(real=st.floats(0.0, 1e6), replayed=st.floats(0.0, 1e6))
def test_bytes_agree_in_either_direction_or_in_neither(real: float, replayed: float) -> None:
    found = figures_of(RUN, counted_ms=0.0)
    one, other = replace(found, bytes_per_frame=real), replace(found, bytes_per_frame=replayed)

    def verdict(first: Figures, second: Figures) -> bool:
        return next(
            each.agrees for each in compare(first, second, [second]) if each.figure == "bytes a frame"
        )

    assert verdict(one, other) == verdict(other, one)


def test_a_page_is_changed_between_its_marks_only() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert replaced(replaced(page, "new"), "old") == page
    with pytest.raises(DataError):
        replaced("no marks", "new")
    text = PAGE.read_text(encoding="utf-8")
    assert replaced(text, "x") != text


def answered(frame: int, exit_index: int, place: Place) -> Answer:
    return Answer(
        frame=frame,
        source="still",
        label=0,
        score=1.0,
        quality=1.0,
        output=(1.0,),
        exit=exit_index,
        place=place,
        captured_ms=100.0 * frame,
        latency_ms=50.0,
        deadline_ms=80.0,
        reason="gateway",
        stages_run=1,
        offloads=1,
        uplink_bytes=10,
        link_up=True,
        decision_us=(),
    )


def test_a_gateways_time_is_that_of_the_stages_it_ran() -> None:
    option = OffloadOption(boundary=0, codec="raw", payload_bytes=10)
    silence = Counted()
    stats = Stats(
        origin_ms=0.0,
        now_ms=0.0,
        worst_lateness_ms=0.0,
        late_share=0.0,
        priority="",
        up=silence,
        down=silence,
    )
    # Twice its usual time for four stages; for the first alone; one taken back after three; a reply too late;
    # and one taken back whose time would fit all four better, which would have been a reply.
    told: list[tuple[int, Place, Observation]] = [
        (3, Place.GATEWAY, Replied(0, option, 50.0, 0.0, 80.0, 100)),
        (0, Place.GATEWAY, Replied(1, option, 50.0, 0.0, 20.0, 100)),
        (2, Place.DEVICE, Failed(2, option, 50.0, "cancelled", 0.0, 63.0)),
        (2, Place.DEVICE, Replied(3, option, 50.0, 0.0, 38.0, 100)),
        (2, Place.DEVICE, Failed(4, option, 50.0, "no reply")),
        (2, Place.DEVICE, Failed(5, option, 50.0, "cancelled", 0.0, 72.0)),
    ]
    real = RealRun(
        started=RunStarted("d", "b", "", (), (), "here", None, None, "p", 0.0, 0.0),
        records=tuple(answered(frame, *each[:2]) for frame, each in enumerate(told)),
        begin_ms=0.0,
        end_ms=1000.0,
        link_before=stats,
        link_after=stats,
        changes=(),
        noted=tuple(FrameNotes(frame, 100.0 * frame, ((0.0, each[2]),)) for frame, each in enumerate(told)),
    )
    factors = own_service(np.random.default_rng(1), real, (), (10.0,) * 4, [9.0])
    assert factors[:4] == pytest.approx([2.0, 2.0, 2.1, 1.9])
    assert factors[5] == pytest.approx(2.4)
    assert factors[4] in {*factors[:4], factors[5]}
