"""Credit, deadlines and late replies, in invented time."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgeexit.errors import LinkDown, NoCredit, OffloadError, OffloadTimeout
from edgeexit.transport.pending import Pending, Verdict, Window

WINDOW = Window(requests=2, size_bytes=1000)
LATE_MS = 500.0
OVERDUE_MS = 100.0


class ManualClock:
    def __init__(self) -> None:
        self.now_ms = 0.0

    def __call__(self) -> float:
        return self.now_ms


def _table(clock: ManualClock) -> Pending[str, int]:
    return Pending(clock=clock, window=WINDOW, late_ms=LATE_MS, overdue_ms=OVERDUE_MS)


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _error(future: Future[int]) -> BaseException | None:
    return future.exception(timeout=0)


def test_the_window_is_bounded_by_count_and_by_bytes() -> None:
    table = _table(ManualClock())
    table.begin(_key(1), size_bytes=600, budget_ms=50, context="")
    with pytest.raises(NoCredit) as caught:
        table.begin(_key(2), size_bytes=600, budget_ms=50, context="")
    assert (caught.value.in_flight, caught.value.in_flight_bytes) == (1, 600)
    table.begin(_key(3), size_bytes=400, budget_ms=50, context="")
    with pytest.raises(NoCredit):
        table.require_credit(0)


def test_a_reply_frees_its_place() -> None:
    table = _table(ManualClock())
    future = table.begin(_key(1), size_bytes=1000, budget_ms=50, context="")
    assert table.complete(_key(1), 7)
    assert future.result(timeout=0) == 7
    assert table.in_flight() == (0, 0)


def test_the_deadline_frees_the_place_and_a_late_reply_still_completes() -> None:
    clock = ManualClock()
    table = _table(clock)
    future = table.begin(_key(1), size_bytes=1000, budget_ms=50, context="")
    clock.now_ms = 50.0
    assert table.in_flight() == (0, 0)
    assert not future.done()
    clock.now_ms = 400.0
    table.sweep()
    assert table.complete(_key(1), 7)
    assert future.result(timeout=0) == 7


def test_after_the_late_window_there_is_a_timeout_with_its_numbers() -> None:
    clock = ManualClock()
    table = _table(clock)
    future = table.begin(_key(1), size_bytes=10, budget_ms=50, context="")
    clock.now_ms = 551.0
    table.sweep()
    error = _error(future)
    assert isinstance(error, OffloadTimeout)
    assert isinstance(error, TimeoutError)
    assert (error.deadline_ms, error.waited_ms) == (50.0, 551.0)
    assert table.find(_key(1)) is Verdict.EXPIRED
    assert not table.complete(_key(1), 7)


def test_duplicates_and_strangers_are_told_apart() -> None:
    table = _table(ManualClock())
    table.begin(_key(1), size_bytes=10, budget_ms=50, context="")
    table.complete(_key(1), 7)
    assert table.find(_key(1)) is Verdict.DUPLICATE
    assert table.find(_key(2)) is Verdict.UNKNOWN


def test_a_disconnect_fails_everything_at_once() -> None:
    table = _table(ManualClock())
    futures = [table.begin(_key(n), size_bytes=10, budget_ms=50, context="") for n in (1, 2)]
    assert table.fail_all(lambda: LinkDown("gone")) == 2
    assert all(isinstance(_error(future), LinkDown) for future in futures)
    assert table.in_flight() == (0, 0)


def test_one_gateway_can_be_failed_alone() -> None:
    table = _table(ManualClock())
    first = table.begin(_key(1), size_bytes=10, budget_ms=50, context="gw-1")
    second = table.begin(_key(2), size_bytes=10, budget_ms=50, context="gw-2")
    table.fail_all(lambda: LinkDown("gone"), where=lambda gateway: gateway == "gw-1")
    assert first.done()
    assert not second.done()
    assert table.holders() == ("gw-2",)


def test_a_request_is_overdue_once() -> None:
    clock = ManualClock()
    table = _table(clock)
    table.begin(_key(1), size_bytes=10, budget_ms=20, context="gw-1")
    clock.now_ms = 90.0
    assert table.sweep() == ()
    clock.now_ms = 101.0
    assert [ticket.context for ticket in table.sweep()] == ["gw-1"]
    assert table.sweep() == ()


def test_what_was_not_sent_leaves_no_trace() -> None:
    table = _table(ManualClock())
    table.begin(_key(1), size_bytes=10, budget_ms=20, context="")
    table.forget(_key(1))
    assert table.in_flight() == (0, 0)
    assert table.find(_key(1)) is Verdict.UNKNOWN


def test_a_request_is_found_by_its_future_until_it_ends() -> None:
    table = _table(ManualClock())
    future = table.begin(_key(1), size_bytes=10, budget_ms=20, context="gw-1")
    ticket = table.ticket_of(future)
    assert ticket is not None
    assert (ticket.key, ticket.context) == (_key(1), "gw-1")
    assert table.ticket_of(Future()) is None
    table.complete(_key(1), 7)
    assert table.ticket_of(future) is None


def test_what_is_under_way_cannot_be_cancelled() -> None:
    table = _table(ManualClock())
    future = table.begin(_key(1), size_bytes=10, budget_ms=20, context="")
    assert not future.cancel()
    table.complete(_key(1), 7)
    assert future.result(timeout=0) == 7


def test_many_silent_requests_do_not_pile_up() -> None:
    clock = ManualClock()
    table: Pending[str, int] = Pending(clock=clock, window=WINDOW, late_ms=1e9)
    futures = []
    for number in range(3000):
        futures.append(table.begin(_key(number), size_bytes=10, budget_ms=1, context=""))
        clock.now_ms += 1.0
    assert sum(not future.done() for future in futures) <= 1024
    assert isinstance(_error(futures[0]), OffloadTimeout)


class PendingMachine(RuleBasedStateMachine):
    """Whatever happens in whichever order: the window holds, and each future ends exactly once."""

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.table = _table(self.clock)
        self.number = 0
        self.futures: dict[int, Future[int]] = {}
        self.deadline_ms: dict[int, float] = {}
        self.ended: dict[int, int] = {}

    def _watch(self, number: int, future: Future[int]) -> None:
        def done(ended: Future[int]) -> None:
            self.ended[number] = self.ended.get(number, 0) + 1
            # A callback may come back to the table: it is called outside the lock.
            self.table.in_flight()

        future.add_done_callback(done)

    @rule(size_bytes=st.integers(1, 700), budget_ms=st.floats(0, 300))
    def begin(self, size_bytes: int, budget_ms: float) -> None:
        before = self.table.in_flight()
        self.number += 1
        fits = before[0] < WINDOW.requests and before[1] + size_bytes <= WINDOW.size_bytes
        try:
            future = self.table.begin(
                _key(self.number), size_bytes=size_bytes, budget_ms=budget_ms, context=""
            )
        except NoCredit:
            assert not fits
            return
        assert fits
        self.futures[self.number] = future
        self.deadline_ms[self.number] = self.clock.now_ms + budget_ms
        self._watch(self.number, future)

    @rule(passed_ms=st.floats(0, 400))
    def wait(self, passed_ms: float) -> None:
        self.clock.now_ms += passed_ms

    @rule(number=st.integers(0, 60))
    def reply(self, number: int) -> None:
        waited_for = number in self.futures and number not in self.ended
        assert self.table.complete(_key(number), number) == waited_for
        if waited_for:
            assert self.futures[number].result(timeout=0) == number

    @rule(number=st.integers(0, 60))
    def refuse(self, number: int) -> None:
        waited_for = number in self.futures and number not in self.ended
        assert self.table.fail(_key(number), OffloadError("refused")) == waited_for

    @rule()
    def sweep(self) -> None:
        self.table.sweep()
        for number, deadline_ms in self.deadline_ms.items():
            if self.clock.now_ms > deadline_ms + LATE_MS:
                assert number in self.ended

    @rule()
    def disconnect(self) -> None:
        self.table.fail_all(lambda: LinkDown("gone"))
        assert self.table.in_flight() == (0, 0)
        assert self.ended.keys() == self.futures.keys()

    @invariant()
    def the_window_holds(self) -> None:
        requests, held_bytes = self.table.in_flight()
        assert requests <= WINDOW.requests
        assert held_bytes <= WINDOW.size_bytes
        in_time = [
            number
            for number, deadline_ms in self.deadline_ms.items()
            if number not in self.ended and self.clock.now_ms < deadline_ms
        ]
        assert requests == len(in_time)

    @invariant()
    def each_future_ends_once(self) -> None:
        assert all(count == 1 for count in self.ended.values())
        assert all(future.done() == (number in self.ended) for number, future in self.futures.items())


TestPendingMachine = PendingMachine.TestCase
