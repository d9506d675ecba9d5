"""The gateways behind a link: free at once for everybody, or workers with a queue before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush

Schedule = Callable[[float, Callable[[float, object], None], object], None]
"""Call a function with a time and an argument when the virtual clock reaches the time."""


class QueueOrder(str, Enum):
    """Which request is served first."""

    FIRST_COME = "first-come"
    EARLIEST_DEADLINE = "earliest-deadline"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Several devices, each with a link of its own, behind `workers` gateway workers with one queue.

    `synchronised` devices capture their frames at the same moments.
    """

    devices: int
    workers: int = 1
    order: QueueOrder = QueueOrder.FIRST_COME
    synchronised: bool = False

    @property
    def name(self) -> str:
        """Name in reports."""
        order = "" if self.order is QueueOrder.FIRST_COME else f", {self.order.value}"
        together = ", synchronised" if self.synchronised else ""
        return f"{self.devices} on {self.workers}{order}{together}"


@dataclass(slots=True)
class PoolRequest:
    """One request at the gateways.

    Units: arrived_ms; service_ms, alone; due_ms, when its answer stops being worth anything.
    `served` is called with the time of completion, the queue time and whether it was refused as too
    late.
    """

    arrived_ms: float
    service_ms: float
    due_ms: float
    served: Callable[[float, float, bool], None]


class GatewayPool:
    """Equal workers with one queue; requests whose deadline has passed are refused when their turn comes.

    Raises: ValueError when there is no worker.
    """

    __slots__ = ("_free", "_order", "_queue", "_schedule", "_serial")

    def __init__(self, workers: int, order: QueueOrder, schedule: Schedule) -> None:
        if workers < 1:
            raise ValueError("a pool has at least one worker")
        self._free = workers
        self._order = order
        self._schedule = schedule
        self._queue: list[tuple[float, int, PoolRequest]] = []
        self._serial = 0

    def arrive(self, now_ms: float, request: object) -> None:
        """Take a request in at its time of arrival."""
        assert isinstance(request, PoolRequest)
        if self._free:
            self._free -= 1
            self._start(now_ms, request)
            return
        self._serial += 1
        urgency = request.due_ms if self._order is QueueOrder.EARLIEST_DEADLINE else request.arrived_ms
        heappush(self._queue, (urgency, self._serial, request))

    def _start(self, now_ms: float, request: PoolRequest) -> None:
        queue_ms = now_ms - request.arrived_ms
        done_ms = now_ms + request.service_ms
        request.served(done_ms, queue_ms, False)
        self._schedule(done_ms, self._next, None)

    def _next(self, now_ms: float, _: object) -> None:
        while self._queue:
            _, _, request = heappop(self._queue)
            if request.due_ms > now_ms:
                self._start(now_ms, request)
                return
            request.served(now_ms, now_ms - request.arrived_ms, True)
        self._free += 1
