"""The shaper's process: two TUN devices, packets carried from one to the other as the link has it.

    python -m benchmarks.reality.shaper DEVICE_TUN GATEWAY_TUN SOCKET

It prints a line when both devices are there; whoever started it moves them into their namespaces.
Requests come as JSON lines over the Unix socket, each is answered by one line. The end of standard
input ends it: it never outlives the program that started it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.reality.shaping import Counted, Delays, Link, Shape, Way, constant
from benchmarks.reality.tun import open_tun, read_packet, write_packet
from edgeexit.errors import EdgeExitError
from edgeexit.replay.traces import read_trace

# Without packets the loop still wakes this often, so that a stall of the machine is seen in any case.
HEARTBEAT_MS = 5.0
# Packets taken from one side before the other has its turn.
BURST = 32
# A request is a line of some hundred bytes.
REQUEST_CAP_BYTES = 4096
# Above everything of the usual scheduler, below what the kernel needs for itself.
PRIORITY = 10
# Where real-time priority is refused, the nicest that root can be to itself.
NICE = -15
# Later than this is counted: a tick of the kernel's clock.
LATE_MS = 4.0

UP, DOWN = 0, 1


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the shaper is asked: begin a link of this shape, cut or restore it, or say how it went."""

    ask: Literal["begin", "cut", "restore", "stats"]
    shape: Shape | None = None


class Stats(msgspec.Struct, kw_only=True):
    """How it went since the link began.

    Units: origin_ms and now_ms, monotonic clock of this machine; worst_lateness_ms, of a packet that left
    later than the link has it, or of the loop itself; late_share, of all packets, later than 4 ms.
    """

    origin_ms: float
    now_ms: float
    worst_lateness_ms: float
    late_share: float
    priority: str
    up: Counted
    down: Counted
    error: str | None = None


class Shaper:
    """Carries packets between two descriptors until its standard input ends."""

    def __init__(self, device: int, gateway: int, listener: socket.socket, priority: str) -> None:
        self._ends = (device, gateway)
        self._listener = listener
        self._priority = priority
        self._clients: dict[socket.socket, bytes] = {}
        self._begin(Shape())

    def run(self) -> None:
        """Carry packets."""
        stdin = sys.stdin.fileno()
        while True:
            now_ms = _monotonic_ms()
            self._deliver(now_ms)
            next_ms = self._link.next_ms
            pause_ms = HEARTBEAT_MS
            if next_ms is not None:
                pause_ms = min(pause_ms, max(0.0, next_ms + self._origin_ms - now_ms))
            watched = [stdin, *self._ends, self._listener, *self._clients]
            ready, _, _ = select.select(watched, [], [], pause_ms / 1000.0)
            # Also with packets ready: being away from the queues for long is lateness of its own.
            self._note_lateness(_monotonic_ms() - now_ms - pause_ms)
            for each in ready:
                if each == stdin:
                    if not os.read(stdin, 64):
                        return
                elif each is self._listener:
                    client, _ = self._listener.accept()
                    self._clients[client] = b""
                elif isinstance(each, socket.socket):
                    self._hear(each)
            self._collect()

    def _begin(self, shape: Shape) -> None:
        up = constant(shape.up_mbps) if shape.up_trace is None else read_trace(Path(shape.up_trace))
        ways = (
            Way(up, Delays(shape.delay_ms, shape.jitter_ms, shape.seed), shape.queue_bytes),
            Way(
                constant(shape.down_mbps),
                Delays(shape.delay_ms, shape.jitter_ms, shape.seed + 1),
                shape.queue_bytes,
            ),
        )
        self._link = Link(ways)
        self._origin_ms = _monotonic_ms()
        self._worst_lateness_ms = 0.0
        self._late = 0

    def _collect(self) -> None:
        for way in (UP, DOWN):
            for _ in range(BURST):
                packet = read_packet(self._ends[way])
                if packet is None:
                    break
                self._link.offer(_monotonic_ms() - self._origin_ms, way, packet)

    def _deliver(self, now_ms: float) -> None:
        link_ms = now_ms - self._origin_ms
        while (due := self._link.take(link_ms)) is not None:
            due_ms, way, packet = due
            lateness_ms = link_ms - due_ms
            self._note_lateness(lateness_ms)
            self._late += lateness_ms > LATE_MS
            if not write_packet(self._ends[1 - way], packet):
                self._link.counted[way].dropped += 1

    def _note_lateness(self, lateness_ms: float) -> None:
        if lateness_ms > self._worst_lateness_ms:
            self._worst_lateness_ms = lateness_ms

    def _hear(self, client: socket.socket) -> None:
        held = self._clients[client]
        try:
            fresh = client.recv(REQUEST_CAP_BYTES)
        except OSError:
            fresh = b""
        if not fresh or len(held) + len(fresh) > REQUEST_CAP_BYTES:
            del self._clients[client]
            client.close()
            return
        *lines, self._clients[client] = (held + fresh).split(b"\n")
        for line in lines:
            with contextlib.suppress(OSError):
                client.sendall(msgspec.json.encode(self._answer(line)) + b"\n")

    def _answer(self, line: bytes) -> Stats:
        try:
            request = msgspec.json.decode(line, type=Request)
            if request.ask == "begin":
                self._begin(request.shape or Shape())
            elif request.ask in ("cut", "restore"):
                self._link.set_cut(_monotonic_ms() - self._origin_ms, request.ask == "cut")
        except (msgspec.MsgspecError, EdgeExitError, ValueError) as error:
            return self._stats(str(error))
        return self._stats(None)

    def _stats(self, error: str | None) -> Stats:
        up, down = self._link.counted
        packets = up.packets + down.packets
        return Stats(
            origin_ms=self._origin_ms,
            now_ms=_monotonic_ms(),
            worst_lateness_ms=self._worst_lateness_ms,
            late_share=self._late / packets if packets else 0.0,
            priority=self._priority,
            up=up,
            down=down,
            error=error,
        )


def raise_priority() -> str:
    """Let this process run before others; what was granted, in words."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError:
        with contextlib.suppress(OSError):
            return f"nice {os.nice(NICE)}"
        return "none"
    return "real-time"


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        try:
            yield listener
        finally:
            Path(path).unlink(missing_ok=True)


def _monotonic_ms() -> float:
    return time.monotonic() * 1000.0


def main() -> None:
    """Run a shaper: DEVICE_TUN GATEWAY_TUN SOCKET."""
    device_name, gateway_name, path = sys.argv[1:]
    # Ctrl-C reaches every process of a terminal: this one ends when its starter closes its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ExitStack() as parts:
        try:
            device = open_tun(device_name)
            parts.callback(os.close, device)
            gateway = open_tun(gateway_name)
            parts.callback(os.close, gateway)
        except EdgeExitError as error:
            sys.exit(f"{error} ({error.fix})")
        listener = parts.enter_context(_listening(path))
        shaper = Shaper(device, gateway, listener, raise_priority())
        # Packets are bytes: nothing here makes cycles, and a collection would make packets late.
        gc.freeze()
        gc.disable()
        print("ready", flush=True)
        shaper.run()


if __name__ == "__main__":
    main()
