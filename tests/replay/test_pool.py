from __future__ import annotations

import pytest

from edgeexit.replay.pool import GatewayPool, PoolRequest, QueueOrder
from edgeexit.replay.simulator import EventLoop

Served = tuple[str, float, float, bool]


def serve(
    order: QueueOrder, arrivals: list[tuple[str, float, float, float]], workers: int = 1
) -> list[Served]:
    """Name, arrival, service and due time of requests; what became of them in order of completion."""
    loop = EventLoop()
    pool = GatewayPool(workers, order, loop.schedule)
    served: list[Served] = []
    for name, at_ms, service_ms, due_ms in arrivals:

        def note(done_ms: float, queue_ms: float, refused: bool, name: str = name) -> None:
            served.append((name, done_ms, queue_ms, refused))

        loop.schedule(at_ms, pool.arrive, PoolRequest(at_ms, service_ms, due_ms, note))
    loop.run()
    return served


CROWD = [("a", 0.0, 10.0, 100.0), ("b", 1.0, 10.0, 90.0), ("c", 2.0, 10.0, 25.0)]


def test_first_come_is_first_served() -> None:
    assert serve(QueueOrder.FIRST_COME, CROWD) == [
        ("a", 10.0, 0.0, False),
        ("b", 20.0, 9.0, False),
        ("c", 30.0, 18.0, False),
    ]


def test_the_earliest_deadline_can_go_first() -> None:
    assert [name for name, *_ in serve(QueueOrder.EARLIEST_DEADLINE, CROWD)] == ["a", "c", "b"]


def test_what_is_too_late_at_its_turn_is_refused_at_once() -> None:
    late = [("a", 0.0, 50.0, 100.0), ("b", 1.0, 10.0, 40.0), ("c", 2.0, 10.0, 90.0)]
    assert serve(QueueOrder.FIRST_COME, late) == [
        ("a", 50.0, 0.0, False),
        ("b", 50.0, 49.0, True),
        ("c", 60.0, 48.0, False),
    ]


def test_workers_serve_side_by_side() -> None:
    assert [done for _, done, _, _ in serve(QueueOrder.FIRST_COME, CROWD, workers=3)] == [10.0, 11.0, 12.0]
    with pytest.raises(ValueError, match="worker"):
        serve(QueueOrder.FIRST_COME, CROWD, workers=0)
