"""A userspace link: a TCP proxy that lets bytes through at the pace of a trace, after a delay.

It needs no root. It shows bandwidth, delay and outages; loss and TCP's own behaviour it cannot show.
Commands come as lines on standard input: `cut`, `restore`; the end of input ends the shaper. Its
first line of output is the port that it listens on and the monotonic time, in ms, at which its trace
began.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeexit.replay.traces import LinkTrace, read_trace

# One Ethernet frame's payload: what shares a link takes turns at about this size.
PIECE_BYTES = 1448
# What a home router queues before it makes the sender wait; more would be buffer bloat of our own making.
QUEUE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """What the link is like. Units: delay_ms, one way."""

    trace: LinkTrace
    delay_ms: float


class Pace:
    """When bytes of one direction are through; all connections of the link share it."""

    def __init__(self, trace: LinkTrace, clock: Callable[[], float], origin_ms: float) -> None:
        self._trace = trace
        self._clock = clock
        self._origin_ms = origin_ms
        self._free_ms = 0.0

    def through_ms(self, count: int) -> float:
        """When `count` bytes handed over now have left, first in, first out; on the clock."""
        now_ms = self._clock() - self._origin_ms
        self._free_ms = self._trace.transfer_ms(max(now_ms, self._free_ms), count)
        return self._origin_ms + self._free_ms


class Shaper:
    """Joins clients of a local port to a server, through the link."""

    def __init__(
        self, shape: Shape, *, server_host: str, server_port: int, clock: Callable[[], float]
    ) -> None:
        self._shape = shape
        self._server = (server_host, server_port)
        self._clock = clock
        self.origin_ms = clock()
        self._up = Pace(shape.trace, clock, self.origin_ms)
        self._down = Pace(shape.trace, clock, self.origin_ms)
        self._whole = asyncio.Event()
        self._whole.set()

    def cut(self) -> None:
        """Let nothing through any more, silently, as a radio that is gone."""
        self._whole.clear()

    def restore(self) -> None:
        """Let bytes through again."""
        self._whole.set()

    async def listen(self, port: int = 0) -> asyncio.Server:
        """Listen on loopback."""
        return await asyncio.start_server(self._join, "127.0.0.1", port, limit=QUEUE_BYTES)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._server, limit=QUEUE_BYTES)
        except OSError:
            writer.close()
            return
        for end in (writer, far_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.gather(
                self._carry(reader, far_writer, self._up), self._carry(far_reader, writer, self._down)
            )
        finally:
            writer.close()
            far_writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: Pace) -> None:
        """Move one direction: paced as it leaves, delivered `delay_ms` later."""
        flying: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_BYTES // PIECE_BYTES)
        deliver = asyncio.create_task(self._deliver(flying, writer), name="edgeexit-deliver")
        try:
            while piece := await reader.read(PIECE_BYTES):
                await self._whole.wait()
                through_ms = pace.through_ms(len(piece))
                await flying.put((through_ms + self._shape.delay_ms, piece))
            await flying.put((self._clock(), b""))
            await deliver
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            deliver.cancel()

    async def _deliver(
        self, flying: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due_ms, piece = await flying.get()
            if not piece:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            pause_ms = due_ms - self._clock()
            if pause_ms > 0:
                await asyncio.sleep(pause_ms / 1000.0)
            await self._whole.wait()
            writer.write(piece)
            await writer.drain()


async def _serve(shaper: Shaper) -> None:
    server = await shaper.listen()
    port = server.sockets[0].getsockname()[1]
    print(port, shaper.origin_ms, flush=True)  # noqa: T201 - the parent reads it
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with server:
        while line := await commands.readline():
            if line.strip() == b"cut":
                shaper.cut()
            elif line.strip() == b"restore":
                shaper.restore()


def main() -> None:
    """Run a shaper: TRACE DELAY_MS SERVER_PORT."""
    trace, delay_ms, server_port = sys.argv[1:]
    shape = Shape(read_trace(Path(trace)), float(delay_ms))

    def clock_ms() -> float:
        return time.monotonic() * 1000.0

    asyncio.run(_serve(Shaper(shape, server_host="127.0.0.1", server_port=int(server_port), clock=clock_ms)))


if __name__ == "__main__":
    main()
