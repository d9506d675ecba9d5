"""Admission against its promises, over arbitrary histories of requests, free workers and passing time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.transport.admission import (
    REPLY_GUARD_MS,
    Admission,
    Refusal,
    Ticket,
    expiry_s,
    time_for_gateway,
)
from edgeexit.transport.status import Status

TOO_LATE = Refusal(Status.TOO_LATE)


def ticket(
    key: int,
    *,
    now_ms: float = 0.0,
    budget_ms: float = 100.0,
    first_ms: float = 2.0,
    all_ms: float = 8.0,
    asker: str | None = None,
) -> Ticket[int]:
    return Ticket(
        key.to_bytes(8, "big"), asker or str(key), now_ms, now_ms + budget_ms, first_ms, all_ms, key
    )


def test_earliest_deadline_is_served_first() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    for key, budget_ms in enumerate((90.0, 50.0, 70.0)):
        assert admission.offer(ticket(key, budget_ms=budget_ms), 0.0).admitted
    served = []
    while (turn := admission.take(0.0)).ticket is not None:
        served.append(turn.ticket.work)
        admission.done(turn.ticket)
    assert served == [1, 2, 0]


def test_full_queue_says_busy_and_when_to_come_back() -> None:
    admission = Admission[int](queue_limit=2, workers=1)
    assert admission.offer(ticket(0, budget_ms=1000.0), 0.0).admitted
    assert admission.offer(ticket(1, budget_ms=1000.0), 0.0).admitted
    refusal = admission.offer(ticket(2, budget_ms=1000.0), 0.0).refusal
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (429, "busy")
    assert refusal.retry_after_ms == 16.0  # two requests of 8 ms ahead, one worker


def test_one_device_cannot_take_all_places() -> None:
    admission = Admission[int](queue_limit=4, workers=1)
    wild = [admission.offer(ticket(key, budget_ms=1000.0, asker="wild"), 0.0) for key in range(4)]
    assert [verdict.reason for verdict in wild] == ["admitted", "admitted", "busy", "busy"]
    assert admission.offer(ticket(9, budget_ms=1000.0, asker="calm"), 0.0).admitted


def test_two_workers_halve_the_wait() -> None:
    admission = Admission[int](queue_limit=8, workers=2)
    for key in range(4):
        assert admission.offer(ticket(key, budget_ms=1000.0), 0.0).admitted
    assert admission.backlog_ms(0.0) == 16.0


def test_request_that_the_queue_would_make_late_is_busy_not_queued() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    assert admission.offer(ticket(0, budget_ms=20.0, all_ms=15.0), 0.0).admitted
    verdict = admission.offer(ticket(1, budget_ms=21.0, first_ms=10.0), 0.0)
    assert (verdict.admitted, verdict.reason) == (False, "busy")


def test_urgent_request_overtakes_instead_of_waiting() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    assert admission.offer(ticket(0, budget_ms=500.0, all_ms=100.0), 0.0).admitted
    assert admission.offer(ticket(1, budget_ms=20.0), 0.0).admitted
    first = admission.take(0.0).ticket
    assert first is not None
    assert first.work == 1


def test_running_request_counts_as_wait() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    admission.offer(ticket(0, budget_ms=60.0, all_ms=50.0), 0.0)
    assert admission.take(0.0).ticket is not None
    assert admission.offer(ticket(1, budget_ms=61.0, first_ms=12.0), 0.0).reason == "busy"
    # 30 ms later 20 ms of it are left
    assert admission.offer(ticket(2, now_ms=30.0, budget_ms=40.0), 30.0).admitted


def test_too_late_is_told_however_late() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    for serial, budget_ms in enumerate((2.5, 0.0)):
        verdict = admission.offer(ticket(serial, budget_ms=budget_ms), 0.0)
        assert (verdict.admitted, verdict.refusal) == (False, TOO_LATE)


def test_time_lost_in_the_queue_is_checked_again() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    admission.offer(ticket(0, budget_ms=10.0), 0.0)
    admission.offer(ticket(1, budget_ms=20.0), 0.0)
    turn = admission.take(18.0)
    assert turn.ticket is None
    assert [(lapsed.ticket.work, lapsed.refusal) for lapsed in turn.lapsed] == [(0, TOO_LATE), (1, TOO_LATE)]


def test_a_request_that_waits_is_taken_back_and_leaves_its_place() -> None:
    admission = Admission[int](queue_limit=2, workers=1)
    first, second = ticket(0), ticket(1)
    assert admission.offer(first, 0.0).admitted
    assert admission.withdraw(second.key) is None, "it never came"
    assert admission.withdraw(first.key) is first
    assert (admission.queued, admission.running) == (0, 0)
    assert admission.withdraw(first.key) is None
    assert admission.offer(first, 0.0).reason == "duplicate", "a late copy is not served after all"
    assert admission.offer(second, 0.0).admitted


def test_a_request_that_runs_is_taken_back_after_its_stage() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    assert admission.offer(ticket(0, budget_ms=500.0, all_ms=90.0), 0.0).admitted
    running = admission.take(0.0).ticket
    assert running is not None
    assert admission.offer(ticket(1, budget_ms=60.0), 0.0).reason == "admitted"
    before_ms = admission.backlog_ms(0.0)
    assert admission.withdraw(running.key) is None
    assert admission.backlog_ms(0.0) < before_ms, "the others wait for one of its stages only"
    assert admission.overtaken(running)
    assert not admission.put_back(running)
    assert (admission.queued, admission.running) == (1, 0)
    after = admission.take(0.0).ticket
    assert after is not None
    assert not admission.overtaken(after)


def test_a_cancel_that_follows_the_end_leaves_nothing_behind() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    assert admission.offer(ticket(0), 0.0).admitted
    running = admission.take(0.0).ticket
    assert running is not None
    assert admission.withdraw(running.key) is None
    admission.done(running)  # its last stage ended first
    assert admission.withdraw(running.key) is None
    assert not admission.overtaken(running)


def test_between_two_stages_the_more_urgent_goes_first() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    assert admission.offer(ticket(0, budget_ms=500.0), 0.0).admitted
    patient = admission.take(0.0).ticket
    assert patient is not None
    assert not admission.overtaken(patient)
    assert admission.offer(ticket(1, now_ms=2.0, budget_ms=498.0), 2.0).admitted
    assert not admission.overtaken(patient), "equal deadlines take no turns"
    assert admission.offer(ticket(2, now_ms=2.0, budget_ms=20.0), 2.0).admitted
    assert admission.overtaken(patient)
    admission.put_back(replace(patient, service_ms=6.0))
    served = []
    while (turn := admission.take(2.0)).ticket is not None:
        served.append(turn.ticket.work)
        admission.done(turn.ticket)
    assert served == [2, 1, 0]
    assert (admission.queued, admission.running) == (0, 0)


def test_the_urgent_wait_for_one_stage_of_the_patient_only() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    admission.offer(ticket(0, budget_ms=500.0, first_ms=2.0, all_ms=50.0), 0.0)
    assert admission.take(0.0).ticket is not None
    assert admission.offer(ticket(1, budget_ms=6.0, first_ms=2.0), 0.0).admitted
    assert admission.offer(ticket(2, budget_ms=4.5, first_ms=2.0), 0.0).reason == "busy"


def test_first_come_is_first_served_where_that_is_wanted() -> None:
    admission = Admission[int](queue_limit=8, workers=1, first_come=True)
    for key, budget_ms in enumerate((90.0, 50.0, 30.0)):
        assert admission.offer(ticket(key, now_ms=float(key), budget_ms=budget_ms), float(key)).admitted
    first = admission.take(3.0).ticket
    assert first is not None
    assert first.work == 0
    assert not admission.overtaken(first)


@given(left_ms=st.floats(-50.0, 1e4, allow_subnormal=False), round_trip_ms=st.none() | st.floats(0.0, 1e4))
def test_a_device_states_what_is_left_for_the_gateway(left_ms: float, round_trip_ms: float | None) -> None:
    stated_ms = time_for_gateway(left_ms, round_trip_ms)
    assert 0.0 <= stated_ms <= max(0.0, left_ms)
    if round_trip_ms is not None and round_trip_ms < 0.5 * left_ms:
        assert stated_ms == left_ms - round_trip_ms
    assert stated_ms <= time_for_gateway(left_ms, None)
    # Whatever is known, a frame with time left is not sent as one without.
    assert (stated_ms > 0.0) == (left_ms > 0.0)


def test_duplicate_is_ignored_until_its_expiry() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    assert admission.offer(ticket(7, budget_ms=100.0), 0.0).admitted
    assert admission.offer(ticket(7, budget_ms=100.0), 1.0).reason == "duplicate"
    served = admission.take(1.0).ticket
    assert served is not None
    admission.done(served)
    assert admission.offer(ticket(7, budget_ms=100.0), 1999.0).reason == "duplicate"
    assert admission.offer(ticket(7, now_ms=2000.0, budget_ms=100.0), 2000.0).admitted


def test_draining_refuses_new_and_serves_old() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    assert admission.offer(ticket(0), 0.0).admitted
    admission.drain()
    assert admission.offer(ticket(1), 0.0).refusal == Refusal(Status.DRAINING)
    assert admission.take(0.0).ticket is not None


def test_clear_gives_back_what_waits() -> None:
    admission = Admission[int](queue_limit=8, workers=1)
    for key in range(3):
        admission.offer(ticket(key), 0.0)
    assert {lapsed.ticket.work for lapsed in admission.clear()} == {0, 1, 2}
    assert admission.queued == 0


def test_message_expiry_is_whole_seconds_and_one_more() -> None:
    assert [expiry_s(left_ms) for left_ms in (-5.0, 0.0, 1.0, 1000.0, 1001.0)] == [1, 1, 2, 2, 3]


OFFER = st.tuples(
    st.just("offer"),
    st.integers(0, 40),
    st.floats(-10.0, 300.0),
    st.floats(0.0, 50.0),
    st.floats(0.0, 100.0),
)
STEP = st.one_of(
    OFFER,
    st.tuples(st.just("take")),
    st.tuples(st.just("done")),
    st.tuples(st.just("back")),
    st.tuples(st.just("pass"), st.floats(0.0, 80.0)),
    st.tuples(st.just("drain")),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
)


@given(
    steps=st.lists(STEP, max_size=80),
    queue_limit=st.integers(1, 5),
    workers=st.integers(1, 3),
    remembered_limit=st.integers(8, 16),
)
def test_every_request_ends_once_and_no_bound_is_passed(
    steps: list[tuple[object, ...]], queue_limit: int, workers: int, remembered_limit: int
) -> None:
    admission = Admission[int](queue_limit=queue_limit, workers=workers, remembered_limit=remembered_limit)
    now_ms = 0.0
    admitted: Counter[int] = Counter()
    ended: Counter[int] = Counter()
    running: list[Ticket[int]] = []
    withdrawn: set[bytes] = set()
    serial = 0
    for step in steps:
        if step[0] == "offer":
            _, key, budget_ms, first_ms, more_ms = step
            assert isinstance(key, int)
            assert isinstance(budget_ms, float)
            assert isinstance(first_ms, float)
            assert isinstance(more_ms, float)
            serial += 1
            request = Ticket(
                key.to_bytes(8, "big"),
                str(key % 3),
                now_ms,
                now_ms + budget_ms,
                first_ms,
                first_ms + more_ms,
                serial,
            )
            verdict = admission.offer(request, now_ms)
            admitted[serial] += verdict.admitted
            if verdict.admitted:
                assert budget_ms >= first_ms + REPLY_GUARD_MS
            if budget_ms <= 0.0:
                assert not verdict.admitted
            assert (verdict.refusal is None) == (verdict.admitted or verdict.reason == "duplicate")
        elif step[0] == "take" and len(running) < workers:
            turn = admission.take(now_ms)
            for lapsed in turn.lapsed:
                ended[lapsed.ticket.work] += 1
                assert lapsed.refusal == TOO_LATE
            if turn.ticket is not None:
                assert turn.ticket.deadline_ms - now_ms >= turn.ticket.first_exit_ms + REPLY_GUARD_MS
                running.append(turn.ticket)
        elif step[0] == "done" and running:
            finished = running.pop(0)
            admission.done(finished)
            ended[finished.work] += 1
        elif step[0] == "back" and running:
            resting = running.pop(0)
            stands = admission.put_back(resting)
            assert stands or resting.key in withdrawn
            ended[resting.work] += not stands
        elif step[0] == "cancel":
            assert isinstance(step[1], int)
            key_bytes = step[1].to_bytes(8, "big")
            waited = admission.withdraw(key_bytes)
            if waited is not None:
                assert waited.key == key_bytes
                ended[waited.work] += 1
            withdrawn.add(key_bytes)
        elif step[0] == "pass":
            assert isinstance(step[1], float)
            now_ms += step[1]
        elif step[0] == "drain":
            admission.drain()
        # What is put back was let in before: it needs no place of its own.
        assert admission.queued + len(running) <= queue_limit + workers
        assert admission.remembered <= remembered_limit
        assert admission.backlog_ms(now_ms) >= 1.0
    for finished in running:
        ended[finished.work] += 1
    for lapsed in admission.clear():
        ended[lapsed.ticket.work] += 1
    assert ended == +admitted
