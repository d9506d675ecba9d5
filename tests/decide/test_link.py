from __future__ import annotations

import random
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.decision import InFlight, OffloadOption
from edgeexit.decide.link import FAILURES_TO_CLOSE, LinkEstimator
from edgeexit.decide.offload_forecast import CROWD_MOST, CROWD_PRICE

IMAGE = OffloadOption(0, "u8", 15_000)
SMALL = OffloadOption(2, "int8", 2_000)


class Exchange:
    """An estimator on a link of known round trip and goodput, in invented time."""

    def __init__(self, *, rtt_ms: float = 30.0, bytes_per_ms: float = 1000.0, seed: int = 1) -> None:
        self.link = LinkEstimator()
        self.rtt_ms = rtt_ms
        self.bytes_per_ms = bytes_per_ms
        self.now_ms = 0.0
        self.token = 0
        self.draw = random.Random(seed)
        self.link.connection(True, 0.0)

    def exchange(self, option: OffloadOption = IMAGE, *, server_ms: float = 4.0, noise: float = 0.1) -> float:
        self.token += 1
        self.link.sent(self.token, option, self.now_ms)
        network_ms = self.rtt_ms + option.payload_bytes / self.bytes_per_ms
        elapsed_ms = network_ms * self.draw.lognormvariate(0.0, noise) + server_ms
        self.link.replied(
            self.token, elapsed_ms, 0.25 * server_ms, 0.75 * server_ms, 200, self.now_ms + elapsed_ms
        )
        self.now_ms += 300.0
        return elapsed_ms

    def ping(self) -> None:
        wanted = self.link.wants_probe(self.now_ms)
        if wanted is not None:
            elapsed_ms = self.rtt_ms + wanted / self.bytes_per_ms
            self.link.pinged(wanted, elapsed_ms, self.now_ms + elapsed_ms)

    def chance(self, limit_ms: float, option: OffloadOption = IMAGE) -> float:
        return self.link.forecast(self.now_ms).probability_within(option, limit_ms)


def test_nothing_is_sent_before_there_is_a_connection() -> None:
    link = LinkEstimator()
    forecast = link.forecast(0.0)
    assert not forecast.up
    assert forecast.probability_within(IMAGE, 1e9) == 0.0
    assert forecast.median_ms(IMAGE) is None
    assert link.wants_probe(0.0) is None
    assert link.goodput_bps is None
    assert link.rtt_ms is None


def test_a_first_connection_may_be_used_and_is_probed_at_once() -> None:
    link = LinkEstimator()
    link.connection(True, 0.0)
    assert link.forecast(0.0).up
    first = link.wants_probe(0.0)
    assert first is not None
    assert first < 200
    assert link.wants_probe(1.0) is None, "asked once, a probe is under way"
    link.pinged(first, 12.0, 12.0)
    second = link.wants_probe(13.0)
    assert second is not None
    assert second > 1000, "the second probe measures goodput"


def test_steady_link_is_forecast_with_its_spread() -> None:
    world = Exchange()
    world.ping()
    for _ in range(60):
        world.exchange()
    median = world.link.forecast(world.now_ms).median_ms(IMAGE)
    assert median == pytest.approx(49.0, rel=0.15)
    assert world.chance(80.0) > 0.9
    assert 0.2 < world.chance(49.0) < 0.8
    assert world.chance(30.0) < 0.05


def test_other_sizes_are_forecast_from_the_same_exchanges() -> None:
    world = Exchange(bytes_per_ms=100.0)
    world.ping()
    for _ in range(40):
        world.exchange()
    median = world.link.forecast(world.now_ms).median_ms(SMALL)
    assert median == pytest.approx(30.0 + 20.0 + 4.0, rel=0.35)
    assert world.chance(90.0, SMALL) > 0.85
    assert world.chance(90.0, IMAGE) < 0.1


def test_fall_of_goodput_is_followed_within_four_exchanges() -> None:
    world = Exchange()
    world.ping()
    for _ in range(40):
        world.exchange()
    world.bytes_per_ms = 60.0
    for _ in range(4):
        world.exchange()
    assert world.chance(100.0) < 0.2
    world.bytes_per_ms = 1000.0
    for _ in range(4):
        world.exchange()
    assert world.chance(110.0) > 0.6


def test_slow_transfers_are_not_taken_for_a_long_round_trip() -> None:
    world = Exchange(rtt_ms=30.0, bytes_per_ms=50.0)
    world.ping()
    for _ in range(20):
        world.exchange()
    assert world.link.rtt_ms == pytest.approx(30.0, rel=0.2)
    assert world.link.goodput_bps == pytest.approx(50.0 * 8000.0, rel=0.3)


def test_busy_gateway_and_slow_link_are_told_apart() -> None:
    world = Exchange()
    world.ping()
    for _ in range(30):
        world.exchange()
    fast = world.link.goodput_bps
    for _ in range(30):
        world.exchange(server_ms=200.0)
    assert world.link.goodput_bps == pytest.approx(fast, rel=0.3)
    assert world.link.server.queue_ms == pytest.approx(50.0)
    assert world.link.server.compute_ms(0) == pytest.approx(150.0)
    assert world.chance(150.0) < 0.05
    assert world.chance(330.0) > 0.8


def test_payload_in_flight_that_is_overdue_speaks_before_it_ends() -> None:
    world = Exchange()
    world.ping()
    for _ in range(40):
        world.exchange()
    before = world.chance(100.0)
    world.link.sent(10_000, IMAGE, world.now_ms)
    world.now_ms += 2_000.0
    assert world.chance(100.0) < 0.3 * before


def test_bytes_queued_before_a_payload_delay_it() -> None:
    world = Exchange(bytes_per_ms=100.0)
    world.ping()
    for _ in range(40):
        world.exchange()
    free = world.chance(260.0)
    world.link.sent(10_000, IMAGE, world.now_ms)
    assert world.chance(260.0) < free


def test_two_failures_close_the_link_until_a_probe_returns() -> None:
    world = Exchange()
    world.ping()
    for _ in range(10):
        world.exchange()
    for token in range(1000, 1000 + FAILURES_TO_CLOSE):
        world.link.sent(token, IMAGE, world.now_ms)
        world.link.failed(token, "timeout", world.now_ms + 100.0)
    assert not world.link.forecast(world.now_ms).up
    assert world.chance(1e6) == 0.0
    wanted = world.link.wants_probe(world.now_ms + 200.0)
    assert wanted is not None
    world.link.pinged(wanted, 31.0, world.now_ms + 231.0)
    assert world.link.forecast(world.now_ms + 231.0).up


def test_probes_back_off_while_they_fail() -> None:
    world = Exchange()
    world.exchange()
    world.link.connection(False, world.now_ms)
    assert world.link.wants_probe(world.now_ms) is None
    world.link.connection(True, world.now_ms)
    asked: list[float] = []
    for _ in range(600):
        if world.link.wants_probe(world.now_ms) is not None:
            asked.append(world.now_ms)
            world.link.probe_failed(world.now_ms)
        world.now_ms += 100.0
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps[0] <= 1100.0
    assert max(gaps) <= 10_100.0
    assert gaps[-1] > 9_000.0


def test_reconnecting_waits_for_a_probe() -> None:
    world = Exchange()
    world.exchange()
    world.link.connection(False, world.now_ms)
    assert not world.link.forecast(world.now_ms).up
    world.link.connection(True, world.now_ms)
    assert not world.link.forecast(world.now_ms).up
    wanted = world.link.wants_probe(world.now_ms)
    assert wanted is not None
    world.link.pinged(wanted, 30.0, world.now_ms + 30.0)
    assert world.link.forecast(world.now_ms + 30.0).up


def test_late_replies_teach_as_much_as_early_ones() -> None:
    world = Exchange()
    world.ping()
    for _ in range(20):
        world.exchange()
    for token in range(500, 504):
        world.link.sent(token, IMAGE, world.now_ms)
        world.link.replied(token, 900.0, 0.0, 4.0, 200, world.now_ms + 900.0)
        world.now_ms += 1000.0
    assert world.chance(150.0) < 0.2


def test_a_gateway_too_late_to_start_is_a_slow_link_not_a_dead_one() -> None:
    world = Exchange()
    world.ping()
    for _ in range(20):
        world.exchange()
    for token in range(500, 505):
        world.link.sent(token, IMAGE, world.now_ms)
        world.link.failed(token, "too_late", world.now_ms + 600.0)
        world.now_ms += 700.0
    assert world.link.forecast(world.now_ms).up
    assert world.chance(100.0) < 0.2


@pytest.mark.parametrize("reason", ["too_late", "cancelled"])
def test_time_at_the_gateway_is_no_slow_link(reason: str) -> None:
    """What a gateway let go of teaches the link as a reply would, however long it had it."""
    told, replied = Exchange(), Exchange()
    for world in (told, replied):
        world.ping()
        for _ in range(20):
            world.exchange(noise=0.0)
    for token in range(500, 520):
        for world in (told, replied):
            world.link.sent(token, IMAGE, world.now_ms)
        told.link.failed(token, reason, told.now_ms + 649.0, queue_ms=540.0, compute_ms=64.0)
        replied.link.replied(token, 649.0, 540.0, 64.0, 200, replied.now_ms + 649.0)
        told.now_ms += 700.0
        replied.now_ms += 700.0
    assert told.link.forecast(told.now_ms).up
    assert told.link.goodput_bps == pytest.approx(replied.link.goodput_bps)
    # The queue was as long as that at least, and is not forgotten; how long computing takes is not told.
    assert told.link.server.queue_ms == pytest.approx(540.0)
    assert told.link.server.compute_ms(0) == pytest.approx(3.0)


def test_a_short_wait_of_what_was_taken_back_does_not_hide_a_queue() -> None:
    world = Exchange()
    world.ping()
    for _ in range(20):
        world.exchange(server_ms=400.0)
    before_ms = world.link.server.queue_ms
    for token in range(500, 530):
        world.link.sent(token, IMAGE, world.now_ms)
        world.link.failed(token, "cancelled", world.now_ms + 50.0, queue_ms=5.0, compute_ms=0.0)
        world.now_ms += 100.0
    assert world.link.server.queue_ms == before_ms == pytest.approx(100.0)


def test_what_never_left_teaches_nothing() -> None:
    world = Exchange()
    world.ping()
    for _ in range(20):
        world.exchange()
    before = world.chance(60.0)
    world.link.sent(500, IMAGE, world.now_ms)
    world.link.failed(500, "cancelled", world.now_ms)
    assert world.link.forecast(world.now_ms).up
    assert world.chance(60.0) == before


def test_hope_is_left_for_a_link_that_may_recover() -> None:
    world = Exchange(rtt_ms=20.0, bytes_per_ms=30.0)
    world.ping()
    for _ in range(60):
        world.exchange()
    assert 0.0 < world.chance(150.0) < 0.05
    assert world.chance(15.0) == 0.0, "no goodput shortens the round trip"


def test_hope_grows_with_silence_after_a_slow_spell() -> None:
    """A device that stops sending must not believe in the last exchange for long."""
    world = Exchange(rtt_ms=20.0, bytes_per_ms=1000.0)
    world.ping()
    for _ in range(60):
        world.exchange()
    world.bytes_per_ms = 40.0
    for _ in range(3):
        world.exchange()
    chances = []
    for _ in range(5):
        chances.append(world.chance(100.0))
        world.now_ms += 1000.0
    assert chances[0] < 0.05
    assert chances == sorted(chances)
    assert chances[-1] > 3.0 * chances[0]


def test_silence_does_not_make_a_slow_link_quick() -> None:
    world = Exchange(rtt_ms=20.0, bytes_per_ms=40.0)
    world.ping()
    for _ in range(60):
        world.exchange()
    world.now_ms += 5000.0
    assert world.chance(100.0) < 0.05


def test_idle_link_is_probed_again() -> None:
    world = Exchange()
    world.ping()
    world.exchange()
    assert world.link.wants_probe(world.now_ms) is None
    assert world.link.wants_probe(world.now_ms + 1_000.0) is not None


def test_a_request_costs_the_others_only_where_they_wait() -> None:
    world = Exchange()
    world.ping()
    assert world.link.forecast(0.0).request_price(IMAGE) == 0.0
    prices = []
    for queue_ms in (0.0, 4.0, 8.0, 400.0):
        for _ in range(20):
            world.token += 1
            world.link.sent(world.token, IMAGE, world.now_ms)
            world.link.replied(world.token, 60.0 + queue_ms, queue_ms, 8.0, 200, world.now_ms + 60.0)
            world.now_ms += 300.0
        prices.append(world.link.forecast(world.now_ms).request_price(IMAGE))
    assert prices == [0.0, 0.5 * CROWD_PRICE, CROWD_PRICE, CROWD_MOST * CROWD_PRICE]
    world.now_ms += 60_000.0
    assert world.link.forecast(world.now_ms).request_price(IMAGE) == 0.0


def test_idle_radio_is_remembered_apart() -> None:
    world = Exchange()
    world.ping()
    for _ in range(20):
        for _ in range(3):
            world.exchange(noise=0.02)
        world.now_ms += 5_000.0
        # The first exchange after a pause wakes the radio: 300 ms more.
        world.rtt_ms += 300.0
        world.exchange(noise=0.02)
        world.rtt_ms -= 300.0
    world.exchange(noise=0.02)
    busy = world.chance(120.0)
    world.now_ms += 5_000.0
    assert world.chance(120.0) < 0.5 * busy


def test_reply_that_is_overdue_becomes_less_likely() -> None:
    world = Exchange()
    world.ping()
    for _ in range(50):
        world.exchange()
    world.link.sent(9_000, IMAGE, world.now_ms)
    fresh = world.link.forecast(world.now_ms).reply_probability(InFlight(IMAGE, 0.0), 60.0)
    world.now_ms += 300.0
    stale = world.link.forecast(world.now_ms).reply_probability(InFlight(IMAGE, 300.0), 60.0)
    assert fresh > 0.5
    assert stale < 0.2


def test_large_replies_count_on_the_way_down() -> None:
    world = Exchange(bytes_per_ms=1000.0)
    world.ping()
    for token in range(100, 140):
        world.link.sent(token, IMAGE, world.now_ms)
        world.link.replied(token, 249.0, 0.0, 4.0, 100_000, world.now_ms + 249.0)
        world.now_ms += 300.0
    median = world.link.forecast(world.now_ms).median_ms(IMAGE)
    assert median == pytest.approx(249.0, rel=0.2)


def test_payload_overtaken_by_a_later_probe_is_given_up() -> None:
    world = Exchange()
    world.ping()
    for _ in range(30):
        world.exchange()
    before = world.chance(100.0)
    world.link.sent(10_000, IMAGE, world.now_ms)
    assert world.link.wants_probe(world.now_ms + 100.0) is None, "the payload will tell more"
    world.now_ms += 8_000.0
    assert world.chance(100.0) < 0.2
    world.ping()
    world.now_ms += 100.0
    assert world.chance(100.0) > 0.6 * before
    world.link.replied(10_000, 8_500.0, 0.0, 4.0, 200, world.now_ms)
    assert world.chance(100.0) > 0.3 * before, "one late reply is one sample, not the end"


def test_the_way_at_the_least_is_that_of_quick_exchanges_and_grows_with_the_bytes() -> None:
    world = Exchange(rtt_ms=30.0, bytes_per_ms=1000.0)
    assert world.link.least_way_ms(IMAGE, 0.0) is None
    world.ping()
    for _ in range(40):
        world.exchange(noise=0.2)
    usual_ms = 30.0 + IMAGE.payload_bytes / 1000.0
    least_ms = world.link.least_way_ms(IMAGE, world.now_ms)
    small_ms = world.link.least_way_ms(SMALL, world.now_ms)
    assert least_ms is not None
    assert small_ms is not None
    assert 0.6 * usual_ms < least_ms < usual_ms
    assert small_ms < least_ms


def test_a_busy_gateway_is_asked_again_with_the_next_frame() -> None:
    world = Exchange()
    world.ping()
    for _ in range(10):
        world.exchange()
    for token in range(600, 620):
        world.link.sent(token, IMAGE, world.now_ms)
        world.now_ms += 40.0
        world.link.failed(token, "busy", world.now_ms)
        assert world.link.forecast(world.now_ms).up


def test_refusing_gateway_is_left_alone_longer_each_time() -> None:
    world = Exchange()
    world.ping()
    for _ in range(10):
        world.exchange()
    waits: list[float] = []
    for token in range(600, 640):
        since_ms = world.now_ms
        while not world.link.forecast(world.now_ms).up:
            world.now_ms += 50.0
        waits.append(world.now_ms - since_ms)
        world.link.sent(token, IMAGE, world.now_ms)
        world.now_ms += 40.0
        world.link.failed(token, "unknown_bundle", world.now_ms)
    assert waits[0] == 0.0
    assert waits[2] == pytest.approx(1000.0, abs=60.0)
    assert max(waits) == pytest.approx(10_000.0, abs=60.0)
    while not world.link.forecast(world.now_ms).up:
        world.now_ms += 50.0
    world.exchange()
    assert world.link.forecast(world.now_ms).up, "one good reply forgives"


numbers = st.floats(allow_nan=True, allow_infinity=True)
event = st.one_of(
    st.tuples(st.just("sent"), st.integers(0, 5), numbers),
    st.tuples(st.just("replied"), st.integers(0, 5), numbers),
    st.tuples(
        st.just("failed"), st.sampled_from(["timeout", "busy", "too_late", "cancelled", "unknown"]), numbers
    ),
    st.tuples(st.just("pinged"), st.sampled_from([64, 4096, -5, 10**9]), numbers),
    st.tuples(st.just("probe_failed"), st.just(0), numbers),
    st.tuples(st.just("connection"), st.booleans(), numbers),
)


@given(
    st.lists(event, max_size=60),
    st.lists(st.floats(0.0, 5e3), min_size=60, max_size=60),
    st.lists(st.floats(allow_nan=False), min_size=2, max_size=6),
)
def test_any_history_leaves_probabilities_monotone(
    events: list[tuple[str, object, float]], steps: list[float], limits: list[float]
) -> None:
    link = LinkEstimator()
    link.connection(True, 0.0)
    now_ms = 0.0
    for (kind, subject, number), step_ms in zip(events, steps, strict=False):
        now_ms += step_ms
        if kind == "sent":
            link.sent(int(str(subject)), IMAGE, now_ms)
        elif kind == "replied":
            link.replied(int(str(subject)), number, number, number, 100, now_ms)
        elif kind == "failed":
            link.failed(0, str(subject), now_ms)
            link.failed(1, str(subject), now_ms, queue_ms=number, compute_ms=number)
            link.worth_cancelling(InFlight(IMAGE, number), now_ms, cancel_bytes=80, byte_price=1e-6)
        elif kind == "pinged":
            link.pinged(int(str(subject)), number, now_ms)
        elif kind == "probe_failed":
            link.probe_failed(now_ms)
        else:
            link.connection(bool(subject), now_ms)
        wanted = link.wants_probe(now_ms)
        assert wanted is None or 0 < wanted <= 16_384
    forecast = link.forecast(now_ms)
    ordered = sorted(limits)
    chances = [forecast.probability_within(IMAGE, limit) for limit in ordered]
    replies = [forecast.reply_probability(InFlight(IMAGE, 50.0), limit) for limit in ordered]
    for values in (chances, replies):
        assert all(0.0 <= value <= 1.0 for value in values)
        assert values == sorted(values)
    median = forecast.median_ms(IMAGE)
    assert median is None or 0.0 <= median < inf
    if not forecast.up:
        assert chances[-1] == 0.0


def test_a_quick_link_is_not_taken_for_a_nearer_one() -> None:
    """A first guess of the goodput must not be taken off the round trip that was measured."""
    link = LinkEstimator()
    link.connection(True, 0.0)
    link.pinged(64, 2.0, 2.0)
    link.pinged(4096, 1.99, 4.0)
    assert link.rtt_ms == pytest.approx(2.0, abs=0.02)
    assert link.forecast(5.0).median_ms(OffloadOption(0, "u8", 1200)) == pytest.approx(3.2, abs=0.3)
