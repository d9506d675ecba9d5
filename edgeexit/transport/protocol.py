"""The port through which boundaries are offloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.generic]
Clock = Callable[[], float]
"""Monotonic milliseconds."""


@dataclass(frozen=True, slots=True)
class OffloadRequest:
    """One boundary on its way to a gateway.

    Units: budget_left_ms, what is left of the frame's budget when the request is handed over; round_trip_ms,
    what of it the network will take at the least, None where that is not known.
    """

    frame: int
    bundle_digest: str
    boundary: int
    codec: str
    tensors: Mapping[str, Tensor]
    budget_left_ms: float
    round_trip_ms: float | None = None


@dataclass(frozen=True, slots=True)
class OffloadReply:
    """What a gateway answered, and what the exchange cost.

    Units: elapsed_ms, submit to reply on the device's clock; queue_ms and compute_ms, the gateway's
    own durations; uplink_bytes and downlink_bytes, whole frames.
    Shapes: output (C,).
    """

    gateway: str
    exit: int
    output: NDArray[np.float32]
    elapsed_ms: float
    queue_ms: float
    compute_ms: float
    uplink_bytes: int
    downlink_bytes: int


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How the transport stands now.

    `abilities` are what payloads may be packed with, because some gateway in reach can unpack it; None
    where that sets no limit. Units: largest_payload_bytes, what fits in one message.
    """

    up: bool
    gateways: int
    in_flight: int
    in_flight_bytes: int
    largest_payload_bytes: int
    abilities: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a probe. Units: elapsed_ms, whole round trip; uplink_bytes, whole frame."""

    gateway: str
    elapsed_ms: float
    uplink_bytes: int


class Transport(Protocol):
    """Port: carries requests to gateways and replies back; its own thread completes the futures.

    A future fails with a leaf of OffloadError. It is not failed at the frame's deadline: a late reply
    still completes it (the engine learns from it), and OffloadTimeout ends it when nothing more can
    be learnt. On a disconnect every pending future fails at once with LinkDown. The credit window
    frees a request's place at its reply, its deadline, or a disconnect, whichever is first.
    """

    def open(self) -> None:
        """Start connecting; returns at once, also where no broker answers yet."""
        ...

    def status(self) -> LinkStatus:
        """How the link stands now; cheap, never blocks."""
        ...

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        """Send a request; never blocks on the network.

        Raises: LinkDown, NoCredit, WireError (too large for one message): nothing was sent.
        """
        ...

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        """Take back the request that this is the reply to: nobody waits for it any more.

        The uplink bytes of what was sent for it, 0 for nothing. Never blocks, never raises. A request that
        has not left yet is not sent: its future fails with OffloadCancelled before this returns. Else its
        gateway is told, once, with no care for whether that arrives; the future ends as ever, with
        OffloadCancelled where the gateway let go of it. Nobody is told where it is not known who has it.
        """
        ...

    def probe(self, payload_bytes: int) -> Future[Pong]:
        """Send a ping of about this size to a gateway. Raises: LinkDown."""
        ...

    def close(self) -> None:
        """Fail what is pending with LinkDown and end the connection."""
        ...
