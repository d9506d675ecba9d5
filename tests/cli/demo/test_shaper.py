"""The userspace link: bytes arrive whole and in order, no faster than the trace, and wait out a cut."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from edgeexit.cli.demo.link import link_for, write_link
from edgeexit.cli.demo.shaper import Pace, Shape, Shaper
from edgeexit.replay.traces import read_trace


def clock_ms() -> float:
    return time.monotonic() * 1000.0


def constant_link(path: Path, mbps: float) -> Path:
    path.write_text(f"0 1\n1 {mbps}\n2 {mbps}\n")
    return path


def test_the_demos_own_link_is_a_trace_with_ups_and_downs(tmp_path: Path) -> None:
    link = link_for(full_local_ms=20.0, payload_bytes=1000)
    assert 1000 * 8 / (link.median_mbps * 1000) < 20.0
    write_link(tmp_path / "a", link, seconds=60, seed=1)
    write_link(tmp_path / "b", link, seconds=60, seed=1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    trace = read_trace(tmp_path / "a")
    assert trace.period_ms == 61_000
    seconds = [trace.carried_bytes(1000.0 * (s + 1)) - trace.carried_bytes(1000.0 * s) for s in range(60)]
    assert max(seconds) > 4 * min(seconds) > 0


def test_pieces_share_the_rate(tmp_path: Path) -> None:
    now_ms = 500.0
    pace = Pace(read_trace(constant_link(tmp_path / "link", 0.8)), lambda: now_ms, origin_ms=500.0)
    # 0.8 Mbit/s are 100 bytes a millisecond.
    assert pace.through_ms(1000) == pytest.approx(510.0)
    assert pace.through_ms(500) == pytest.approx(515.0)


def test_bytes_arrive_whole_and_in_order_through_a_cut(tmp_path: Path) -> None:
    sent = bytes(range(256)) * 80

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(4096):
            writer.write(piece)
        writer.close()

    async def through() -> tuple[bytes, bool]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        shape = Shape(read_trace(constant_link(tmp_path / "link", 50.0)), delay_ms=2.0)
        port: int = server.sockets[0].getsockname()[1]
        shaper = Shaper(shape, server_host="127.0.0.1", server_port=port, clock=clock_ms)
        entrance = await shaper.listen()
        reader, writer = await asyncio.open_connection(*entrance.sockets[0].getsockname()[:2])
        writer.write(sent[:100])
        assert await reader.readexactly(100) == sent[:100]
        shaper.cut()
        writer.write(sent[100:])
        try:
            await asyncio.wait_for(reader.read(1), 0.3)
            silent = False
        except TimeoutError:
            silent = True
        shaper.restore()
        back = await reader.readexactly(len(sent) - 100)
        writer.close()
        await asyncio.sleep(0.05)
        entrance.close()
        server.close()
        return back, silent

    back, silent = asyncio.run(through())
    assert silent
    assert back == sent[100:]


def test_a_server_that_is_gone_closes_the_connection(tmp_path: Path) -> None:
    async def through() -> bytes:
        shape = Shape(read_trace(constant_link(tmp_path / "link", 50.0)), delay_ms=0.0)
        shaper = Shaper(shape, server_host="127.0.0.1", server_port=1, clock=clock_ms)
        entrance = await shaper.listen()
        reader, writer = await asyncio.open_connection(*entrance.sockets[0].getsockname()[:2])
        end = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        entrance.close()
        return end

    assert asyncio.run(through()) == b""
