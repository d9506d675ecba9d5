"""Which requests are taken, which are refused and with which word: pure, given the time.

A request is checked twice against what is left of its budget: on arrival, with the wait that the queue
in front of it promises, and again when a worker is free. Who comes too late is told so, however late: the
device then knows that the gateway is there, which silence would make it doubt. Its device may take a
request back: one that waits leaves the queue, one that runs stops after the stage that it is in.
The earliest deadline goes first, also before what is being served: between two stages a worker looks
whether somebody is in more of a hurry, and puts its own request back. Gateways and replays of gateways
keep the same queue.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

from edgeexit.transport.status import Reason, Status

# Time kept back for packing the reply and handing it to the broker connection: 0.2 ms were usual for
# 40 kB on a loopback, a busy small machine takes several times that.
REPLY_GUARD_MS = 1.0
# Of what is left of a budget so much is stated at the least. Over fleets on the development traces, a crowded
# gateway closes 0.7 to 1 hundredth more of the gap with it than with none and with half of it.
HOPED_SHARE = 0.3
# A device is not asked to come back sooner than this: less than the shortest stage anybody serves.
SHORTEST_RETRY_MS = 1.0
# Request ids kept for de-duplication, whatever their expiry: 50 devices at 30 requests a second over the
# few seconds that a request lives are 4,500; an entry is about 200 bytes.
REMEMBERED_LIMIT = 8_192

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal as it travels, and when asking again makes sense."""

    status: Status
    retry_after_ms: float | None = None

    @property
    def reason(self) -> str:
        """The word for it."""
        return str((self.status.reason or Reason.FAILED).value)


def ends_in_time(now_ms: float, takes_ms: float, deadline_ms: float) -> bool:
    """Whether what takes this long can still be answered by the deadline."""
    return now_ms + takes_ms + REPLY_GUARD_MS <= deadline_ms


def time_for_gateway(left_ms: float, round_trip_ms: float | None) -> float:
    """What a device states to be left of a frame's budget: less the way there and back, where that is known.

    A frame for which not even that is left is sent in the hope that the network is quicker than it was.
    """
    if round_trip_ms is None or left_ms <= 0.0:
        return max(0.0, left_ms)
    return max(left_ms - round_trip_ms, HOPED_SHARE * left_ms)


@dataclass(frozen=True, slots=True)
class Ticket(Generic[Work]):
    """A request as admission sees it.

    Units: deadline_ms, on the gateway's clock, arrival plus what was left of the budget; first_exit_ms,
    expected time until the next answer it could be given, one stage on; service_ms, until the last exit.
    `key` is the same for a request and its duplicates, and for nothing else; `asker` is who sent it.
    """

    key: bytes
    asker: str
    arrived_ms: float
    deadline_ms: float
    first_exit_ms: float
    service_ms: float
    work: Work


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request on arrival; a duplicate is neither admitted nor refused: it gets no reply."""

    admitted: bool
    reason: str
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Lapsed(Generic[Work]):
    """A queued request that is not served, and the word for why."""

    ticket: Ticket[Work]
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Turn(Generic[Work]):
    """What a free worker gets: the next request, if any, and those found lapsed on the way."""

    ticket: Ticket[Work] | None
    lapsed: tuple[Lapsed[Work], ...]


class Admission(Generic[Work]):
    """A bounded queue, earliest deadline first. Not locked: its owner is.

    One asker may hold half of the queue: a device gone wild leaves room for the others. Where
    `first_come` is given, requests are served in the order of their arrival instead, without a pause.
    Units: queue_limit, requests waiting; workers, requests served at a time.
    """

    def __init__(
        self,
        *,
        queue_limit: int,
        workers: int,
        remembered_limit: int = REMEMBERED_LIMIT,
        first_come: bool = False,
    ) -> None:
        self._queue_limit = queue_limit
        self._asker_limit = max(1, queue_limit // 2)
        self._workers = workers
        self._remembered_limit = remembered_limit
        self._first_come = first_come
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Ticket[Work]]] = []
        self._running: dict[bytes, tuple[Ticket[Work], float]] = {}  # key → it, and when it should be done
        self._withdrawn: set[bytes] = set()  # of those
        self._remembered: OrderedDict[bytes, float] = OrderedDict()  # key → when it may be forgotten
        self._draining = False

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many requests are being served."""
        return len(self._running)

    @property
    def remembered(self) -> int:
        """How many request ids are kept for de-duplication."""
        return len(self._remembered)

    @property
    def draining(self) -> bool:
        """Whether new requests are turned away."""
        return self._draining

    def offer(self, ticket: Ticket[Work], now_ms: float) -> Verdict:
        """Take a request into the queue, or say why not."""
        if not self._first_sight(ticket, now_ms):
            return Verdict(False, "duplicate")
        left_ms = ticket.deadline_ms - now_ms
        if self._draining:
            return self._refused(Refusal(Status.DRAINING))
        if left_ms < ticket.first_exit_ms + REPLY_GUARD_MS:
            return self._refused(Refusal(Status.TOO_LATE))
        wait_ms = self._wait_ms(self._urgency(ticket), now_ms)
        asked = sum(entry[2].asker == ticket.asker for entry in self._queue)
        full = len(self._queue) >= self._queue_limit or asked >= self._asker_limit
        if full or left_ms < wait_ms + ticket.first_exit_ms + REPLY_GUARD_MS:
            return self._refused(Refusal(Status.BUSY, self.backlog_ms(now_ms)))
        self._push(ticket)
        return Verdict(True, "admitted")

    def take(self, now_ms: float) -> Turn[Work]:
        """The waiting request with the earliest deadline that can still be met.

        Call `done` or `put_back` after it.
        """
        lapsed: list[Lapsed[Work]] = []
        while self._queue:
            ticket = heapq.heappop(self._queue)[2]
            left_ms = ticket.deadline_ms - now_ms
            if left_ms < ticket.first_exit_ms + REPLY_GUARD_MS:
                lapsed.append(Lapsed(ticket, Refusal(Status.TOO_LATE)))
            else:
                self._running[ticket.key] = (ticket, now_ms + ticket.service_ms)
                return Turn(ticket, tuple(lapsed))
        return Turn(None, tuple(lapsed))

    def done(self, ticket: Ticket[Work]) -> None:
        """A taken request is finished, however it ended."""
        self._running.pop(ticket.key, None)
        self._withdrawn.discard(ticket.key)

    def overtaken(self, ticket: Ticket[Work]) -> bool:
        """Whether a request that is between two stages makes way: for one in more of a hurry, or for good."""
        queue = self._queue
        hurried = bool(queue) and not self._first_come and queue[0][0] < ticket.deadline_ms
        return hurried or ticket.key in self._withdrawn

    def put_back(self, ticket: Ticket[Work]) -> bool:
        """Let a taken request, with what is left of it to do, wait again: it was let in before.

        False where it was withdrawn: then it is done with.
        """
        withdrawn = ticket.key in self._withdrawn
        self.done(ticket)
        if not withdrawn:
            self._push(ticket)
        return not withdrawn

    def withdraw(self, key: bytes) -> Ticket[Work] | None:
        """Take a request back: what waited and does no longer.

        None where it is being served, which `overtaken` and `put_back` will tell, and where there is no such
        request: it may be answered already, or never have come.
        """
        for place, (_, _, ticket) in enumerate(self._queue):
            if ticket.key == key:
                del self._queue[place]
                heapq.heapify(self._queue)
                return ticket
        if key in self._running:
            self._withdrawn.add(key)
        return None

    def drain(self) -> None:
        """Turn new requests away from now on; what is queued is still served."""
        self._draining = True

    def clear(self) -> tuple[Lapsed[Work], ...]:
        """Give back everything still queued, refused as draining."""
        left = tuple(Lapsed(ticket, Refusal(Status.DRAINING)) for _, _, ticket in self._queue)
        self._queue.clear()
        return left

    def backlog_ms(self, now_ms: float) -> float:
        """When a request that comes last would start to be served, at least `SHORTEST_RETRY_MS`."""
        return max(SHORTEST_RETRY_MS, self._wait_ms(float("inf"), now_ms))

    @staticmethod
    def _refused(refusal: Refusal) -> Verdict:
        return Verdict(False, refusal.reason, refusal)

    def _urgency(self, ticket: Ticket[Work]) -> float:
        return ticket.arrived_ms if self._first_come else ticket.deadline_ms

    def _push(self, ticket: Ticket[Work]) -> None:
        heapq.heappush(self._queue, (self._urgency(ticket), next(self._order), ticket))

    def _wait_ms(self, urgency: float, now_ms: float) -> float:
        """Expected time until a worker is free for a request that is this urgent."""
        free_ms = [0.0] * (self._workers - len(self._running))
        for ticket, end_ms in self._running.values():
            busy_ms = max(0.0, end_ms - now_ms)
            # What is less urgent, or withdrawn, makes way after the stage that it is in.
            makes_way = self._urgency(ticket) > urgency or ticket.key in self._withdrawn
            free_ms.append(min(busy_ms, ticket.first_exit_ms) if makes_way else busy_ms)
        heapq.heapify(free_ms)
        ahead = sorted((*entry[:2], entry[2].service_ms) for entry in self._queue if entry[0] <= urgency)
        for _, _, service_ms in ahead:
            heapq.heapreplace(free_ms, free_ms[0] + service_ms)
        return free_ms[0]

    def _first_sight(self, ticket: Ticket[Work], now_ms: float) -> bool:
        """Whether this request id is new; remembers it until no copy of it can arrive any more."""
        while self._remembered:
            key, forget_ms = next(iter(self._remembered.items()))
            if forget_ms > now_ms and len(self._remembered) < self._remembered_limit:
                break
            del self._remembered[key]
        if self._remembered.get(ticket.key, now_ms) > now_ms:
            return False
        self._remembered[ticket.key] = now_ms + expiry_s(ticket.deadline_ms - ticket.arrived_ms) * 1000.0
        self._remembered.move_to_end(ticket.key)
        return True


def expiry_s(budget_left_ms: float) -> int:
    """How long a message with this budget may be kept by a broker: whole seconds, rounded up, plus one."""
    return ceil(max(0.0, budget_left_ms) / 1000.0) + 1
