"""The gateways of a replay: their queue is that of a real gateway."""

from __future__ import annotations

import pytest

from edgeexit.replay.pool import GatewayPool, PoolAnswer, PoolRequest, QueueOrder
from edgeexit.replay.simulator import EventLoop

Ended = tuple[str, float, int | None, str | None, float]
Arrival = tuple[str, float, float, float]


def serve(
    order: QueueOrder,
    arrivals: list[Arrival],
    workers: int = 1,
    known_ms: tuple[float, ...] = (),
    cancel: tuple[str, float] | None = None,
) -> list[Ended]:
    """Name, arrival, time of both stages and time left of requests; how they ended, in that order.

    Of each: its name, when, the exit that answered, why it was refused, its time in the queue.
    """
    loop = EventLoop()
    pool = GatewayPool(workers, order, loop.schedule, known_ms)
    ended: list[Ended] = []
    for name, at_ms, service_ms, left_ms in arrivals:

        def note(now_ms: float, answer: PoolAnswer, name: str = name) -> None:
            refusal = None if answer.refusal is None else answer.refusal.reason
            ended.append((name, now_ms, answer.exit, refusal, answer.queue_ms))

        stage_ms = (0.5 * service_ms, 0.5 * service_ms)
        request = PoolRequest(pool.new_asker(), at_ms, left_ms, 0, stage_ms, note)
        loop.schedule(at_ms, pool.arrive, request)
        if cancel is not None and cancel[0] == name:
            loop.schedule(cancel[1], pool.withdraw, request)
    loop.run()
    return ended


CROWD: list[Arrival] = [("a", 0.0, 10.0, 100.0), ("b", 1.0, 10.0, 89.0), ("c", 2.0, 10.0, 24.0)]


def test_first_come_is_first_served() -> None:
    assert serve(QueueOrder.FIRST_COME, CROWD) == [
        ("a", 10.0, 1, None, 0.0),
        ("b", 20.0, 1, None, 9.0),
        ("c", 25.0, 0, None, 18.0),
    ]


def test_the_earliest_deadline_goes_first_between_two_stages() -> None:
    assert serve(QueueOrder.EARLIEST_DEADLINE, CROWD) == [
        ("c", 15.0, 1, None, 3.0),
        ("b", 25.0, 1, None, 14.0),
        ("a", 30.0, 1, None, 20.0),
    ]


def test_what_the_queue_would_make_late_is_refused_on_arrival() -> None:
    late: list[Arrival] = [("a", 0.0, 50.0, 100.0), ("b", 1.0, 50.0, 130.0), ("c", 2.0, 50.0, 121.0)]
    assert serve(QueueOrder.FIRST_COME, late, known_ms=(25.0, 25.0)) == [
        ("c", 2.0, None, "busy", 0.0),
        ("a", 50.0, 1, None, 0.0),
        ("b", 100.0, 1, None, 49.0),
    ]


def test_a_slow_request_is_cut_off_at_its_deadline_with_what_it_has_reached() -> None:
    slow: list[Arrival] = [("a", 0.0, 80.0, 50.0), ("b", 1.0, 10.0, 90.0)]
    assert serve(QueueOrder.FIRST_COME, slow, known_ms=(5.0, 25.0))[:1] == [("a", 40.0, 0, None, 0.0)]


def test_one_without_time_is_told_so() -> None:
    assert serve(QueueOrder.EARLIEST_DEADLINE, [("a", 0.0, 10.0, 0.0)]) == [("a", 0.0, None, "too_late", 0.0)]


def test_one_that_lapses_in_the_queue_is_told_so_with_its_wait() -> None:
    # Nothing is known of the stages: the queue lets it in, and finds it lapsed when the worker is free.
    pair: list[Arrival] = [("a", 0.0, 40.0, 100.0), ("b", 1.0, 10.0, 101.0), ("c", 2.0, 10.0, 21.0)]
    first, *others = serve(QueueOrder.FIRST_COME, pair)
    assert first == ("a", 40.0, 1, None, 0.0)
    assert ("c", 50.0, None, "too_late", 48.0) in others


@pytest.mark.parametrize(
    ("cancel_at_ms", "expected"),
    [
        # While it waits; while its first stage runs; before it came; once it is served.
        (5.0, [("b", 5.0, None, "cancelled", 4.0), ("a", 10.0, 1, None, 0.0)]),
        (12.0, [("a", 10.0, 1, None, 0.0), ("b", 15.0, None, "cancelled", 9.0)]),
        (0.5, [("a", 10.0, 1, None, 0.0), ("b", 20.0, 1, None, 9.0)]),
        (17.0, [("a", 10.0, 1, None, 0.0), ("b", 20.0, 1, None, 9.0)]),
        (90.0, [("a", 10.0, 1, None, 0.0), ("b", 20.0, 1, None, 9.0)]),
    ],
)
def test_a_cancelled_request_gives_its_place_and_its_worker_back(
    cancel_at_ms: float, expected: list[Ended]
) -> None:
    ends = serve(
        QueueOrder.EARLIEST_DEADLINE, [*CROWD[:1], ("b", 1.0, 10.0, 300.0)], cancel=("b", cancel_at_ms)
    )
    assert ends == expected


def test_workers_serve_side_by_side() -> None:
    done = [at_ms for _, at_ms, *_ in serve(QueueOrder.FIRST_COME, CROWD, workers=3)]
    assert done == [10.0, 11.0, 12.0]
    with pytest.raises(ValueError, match="worker"):
        serve(QueueOrder.FIRST_COME, CROWD, workers=0)
