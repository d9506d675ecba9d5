"""The gateways behind a link: free at once for everybody, or workers with a queue before them.

Workers keep the very queue of a real gateway: its admission, its measured stage times, its pauses between
stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from edgeexit.transport.admission import Admission, Lapsed, Refusal, Ticket, ends_in_time
from edgeexit.transport.service_times import ServiceTimes
from edgeexit.transport.status import Status

# Requests that may wait, as a gateway is configured unless it says otherwise.
QUEUE_LIMIT = 32
# All requests of a replay are for one network.
_DIGEST = ""

Schedule = Callable[[float, Callable[[float, object], None], object], None]
"""Call a function with a time and an argument when the virtual clock reaches the time."""


class QueueOrder(str, Enum):
    """Which request is served first."""

    FIRST_COME = "first-come"
    EARLIEST_DEADLINE = "earliest-deadline"
    """As gateways do it: also before what is being served, between two of its stages."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Several devices, each with a link of its own, behind `workers` gateway workers with one queue.

    `synchronised` devices capture their frames at the same moments.
    """

    devices: int
    workers: int = 1
    order: QueueOrder = QueueOrder.EARLIEST_DEADLINE
    synchronised: bool = False

    @property
    def name(self) -> str:
        """Name in reports."""
        order = "" if self.order is QueueOrder.EARLIEST_DEADLINE else f", {self.order.value}"
        together = ", synchronised" if self.synchronised else ""
        return f"{self.devices} on {self.workers}{order}{together}"


@dataclass(frozen=True, slots=True)
class PoolAnswer:
    """How a request ended: with the answer of an exit, or with a refusal.

    Units: queue_ms and compute_ms, as a reply tells them.
    """

    exit: int | None = None
    refusal: Refusal | None = None
    queue_ms: float = 0.0
    compute_ms: float = 0.0


@dataclass(slots=True)
class PoolRequest:
    """One request at the gateways.

    `first` is the stage that it begins with, `done` counts those it has behind it. `ended` is called once,
    with the time. `key` is how the gateways call it, None before they have it.
    Shapes: stage_ms (K - first,), what its stages will take.
    Units: arrived_ms; left_ms, what the device said was left of its budget.
    """

    asker: str
    arrived_ms: float
    left_ms: float
    first: int
    stage_ms: Sequence[float]
    ended: Callable[[float, PoolAnswer], None]
    done: int = 0
    key: bytes | None = None

    def answer(self, now_ms: float) -> PoolAnswer:
        """The deepest answer that it has reached."""
        return PoolAnswer(self.first + self.done - 1, None, *self._cost_ms(now_ms))

    def refused(self, now_ms: float, refusal: Refusal) -> PoolAnswer:
        """A refusal after it was let in, with what it has cost since."""
        return PoolAnswer(None, refusal, *self._cost_ms(now_ms))

    def _cost_ms(self, now_ms: float) -> tuple[float, float]:
        compute_ms = sum(self.stage_ms[: self.done])
        return max(0.0, now_ms - self.arrived_ms - compute_ms), compute_ms


class GatewayPool:
    """Equal workers with one queue.

    `stage_ms` are what stages were measured to take before the first request. Shapes: stage_ms (K,).
    Raises: ValueError when there is no worker.
    """

    __slots__ = ("_admission", "_askers", "_free", "_schedule", "_serial", "_times")

    def __init__(
        self, workers: int, order: QueueOrder, schedule: Schedule, stage_ms: Sequence[float] = ()
    ) -> None:
        if workers < 1:
            raise ValueError("a pool has at least one worker")
        self._free = workers
        self._schedule = schedule
        self._admission = Admission[PoolRequest](
            queue_limit=QUEUE_LIMIT, workers=workers, first_come=order is QueueOrder.FIRST_COME
        )
        self._times = ServiceTimes()
        for stage, took_ms in enumerate(stage_ms):
            self._times.observe(_DIGEST, stage, took_ms, 0.0)
        self._serial = 0
        self._askers = 0

    def new_asker(self) -> str:
        """A name for one more device."""
        self._askers += 1
        return str(self._askers)

    def arrive(self, now_ms: float, request: object) -> None:
        """Take a request in at its time of arrival, or refuse it."""
        assert isinstance(request, PoolRequest)
        self._serial += 1
        request.key = self._serial.to_bytes(8, "big")
        ticket = Ticket(
            request.key,
            request.asker,
            now_ms,
            now_ms + request.left_ms,
            *self._expected_ms(request, request.left_ms, now_ms),
            request,
        )
        verdict = self._admission.offer(ticket, now_ms)
        if verdict.admitted:
            self._serve(now_ms)
        else:
            request.ended(now_ms, PoolAnswer(refusal=verdict.refusal))

    def withdraw(self, now_ms: float, request: object) -> None:
        """Let go of a request at the time at which its device's cancel arrives."""
        assert isinstance(request, PoolRequest)
        waited = None if request.key is None else self._admission.withdraw(request.key)
        if waited is not None:
            request.ended(now_ms, request.refused(now_ms, Refusal(Status.CANCELLED)))

    def _expected_ms(self, request: PoolRequest, left_ms: float, now_ms: float) -> tuple[float, float]:
        first, stop = request.first + request.done, request.first + len(request.stage_ms)
        return self._times.request_ms(_DIGEST, first, stop, left_ms, now_ms)

    def _serve(self, now_ms: float) -> None:
        """Give every free worker its next request."""
        while self._free:
            turn = self._admission.take(now_ms)
            for lapsed in turn.lapsed:
                _lapse(now_ms, lapsed)
            if turn.ticket is None:
                return
            self._free -= 1
            self._begin_stage(now_ms, turn.ticket)

    def _begin_stage(self, now_ms: float, ticket: Ticket[PoolRequest]) -> None:
        request = ticket.work
        self._schedule(now_ms + request.stage_ms[request.done], self._stage_ended, ticket)

    def _stage_ended(self, now_ms: float, ticket: object) -> None:
        assert isinstance(ticket, Ticket)
        request: PoolRequest = ticket.work
        stage = request.first + request.done
        self._times.observe(_DIGEST, stage, request.stage_ms[request.done], now_ms)
        request.done += 1
        if request.done < len(request.stage_ms):
            left_ms = max(0.0, ticket.deadline_ms - now_ms)
            first_ms, all_ms = self._expected_ms(request, left_ms, now_ms)
            if self._admission.overtaken(ticket):
                rest = replace(ticket, first_exit_ms=first_ms, service_ms=all_ms)
                if not self._admission.put_back(rest):
                    request.ended(now_ms, request.refused(now_ms, Refusal(Status.CANCELLED)))
                self._free += 1
                self._serve(now_ms)
                return
            if ends_in_time(now_ms, first_ms, ticket.deadline_ms):
                self._begin_stage(now_ms, ticket)
                return
        self._admission.done(ticket)
        self._free += 1
        request.ended(now_ms, request.answer(now_ms))
        self._serve(now_ms)


def _lapse(now_ms: float, lapsed: Lapsed[PoolRequest]) -> None:
    request = lapsed.ticket.work
    answer = request.answer(now_ms) if request.done else request.refused(now_ms, lapsed.refusal)
    request.ended(now_ms, answer)
