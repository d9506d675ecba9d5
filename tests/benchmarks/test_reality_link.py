"""Two namespaces joined by the shaper, for real: delay, rate, cut, and nothing left behind.

No time is asserted but what physics guarantees: a packet is never sooner than its link allows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reality.namespaces import (
    GATEWAY_ADDRESS,
    PREFIX,
    Namespaces,
    inside,
    ip,
    remove_leftovers,
    require_root,
)
from benchmarks.reality.shaped_link import ROOT, ShapedLink
from benchmarks.reality.shaping import Shape
from benchmarks.reality.tun import open_tun
from edgeexit.errors import DeviceError

pytestmark = [pytest.mark.slow, pytest.mark.process]

PATIENCE_S = 60.0
ECHO = """
import socket
with socket.create_server(("{address}", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        peer, _ = listener.accept()
        with peer:
            size = int.from_bytes(peer.recv(8), "big")
            peer.sendall(b"!")
            while size > 0:
                size -= len(peer.recv(65536))
            peer.sendall(b".")
"""
# Connects, says how much will come, sends it, and prints how long the greeting and the bytes took.
ASK = """
import socket, sys, time
address, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_connection((address, port), timeout=float(sys.argv[4])) as peer:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began = time.monotonic()
    peer.sendall(size.to_bytes(8, "big"))
    assert peer.recv(1) == b"!"
    greeted = time.monotonic()
    peer.sendall(bytes(size))
    assert peer.recv(1) == b"."
    print((greeted - began) * 1000.0, (time.monotonic() - greeted) * 1000.0)
"""


@pytest.fixture(scope="module")
def namespaces() -> Iterator[Namespaces]:
    with Namespaces() as made:
        yield made


@pytest.fixture(scope="module")
def link(namespaces: Namespaces, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShapedLink]:
    with ShapedLink(namespaces, log=tmp_path_factory.mktemp("shaper") / "shaper.log") as made:
        yield made


@pytest.fixture(scope="module")
def echo_port(namespaces: Namespaces) -> Iterator[int]:
    words = inside(namespaces.gateway, [sys.executable, "-c", ECHO.format(address=GATEWAY_ADDRESS)])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


def ask(
    namespaces: Namespaces, port: int, size: int, *, patience_s: float = PATIENCE_S
) -> tuple[float, float]:
    """How long a greeting and `size` bytes took through the link, in ms."""
    words = [sys.executable, "-c", ASK, GATEWAY_ADDRESS, str(port), str(size), str(patience_s)]
    done = subprocess.run(inside(namespaces.device, words), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConnectionError(done.stderr)
    greeting_ms, transfer_ms = done.stdout.split()
    return float(greeting_ms), float(transfer_ms)


def test_a_delay_is_paid_both_ways(namespaces: Namespaces, link: ShapedLink, echo_port: int) -> None:
    link.begin(Shape(delay_ms=20.0))
    greeting_ms, _ = ask(namespaces, echo_port, 10)
    assert greeting_ms >= 40.0
    before = link.stats()
    assert before.up.packets > 0
    assert before.down.packets > 0
    link.begin(Shape(delay_ms=60.0))
    slower_ms, _ = ask(namespaces, echo_port, 10)
    assert slower_ms >= 120.0
    link.begin(Shape(delay_ms=20.0, jitter_ms=5.0))
    assert ask(namespaces, echo_port, 10)[0] >= 40.0


def test_a_rate_bounds_a_transfer(namespaces: Namespaces, link: ShapedLink, echo_port: int) -> None:
    link.begin(Shape(up_mbps=4.0))
    _, slow_ms = ask(namespaces, echo_port, 100_000)
    # 100 kB at 4 Mbit/s, headers apart.
    assert slow_ms >= 200.0
    assert link.stats().up.bytes > 100_000
    link.begin(Shape(up_mbps=1.0))
    # No more than physics: how long the first one took says how loaded this machine was, too.
    assert ask(namespaces, echo_port, 100_000)[1] >= 800.0


def test_a_trace_is_replayed(
    namespaces: Namespaces, link: ShapedLink, echo_port: int, tmp_path: Path
) -> None:
    trace = tmp_path / "up.trace"
    trace.write_text("0 1\n600 2.0\n")
    link.begin(Shape(up_trace=str(trace)))
    assert ask(namespaces, echo_port, 50_000)[1] >= 200.0


def test_a_short_queue_drops_and_tcp_still_delivers(
    namespaces: Namespaces, link: ShapedLink, echo_port: int
) -> None:
    link.begin(Shape(up_mbps=10.0, queue_bytes=6000))
    ask(namespaces, echo_port, 200_000)
    assert link.stats().up.dropped > 0


def test_a_cut_passes_nothing_until_it_is_restored(
    namespaces: Namespaces, link: ShapedLink, echo_port: int
) -> None:
    link.begin(Shape())
    ask(namespaces, echo_port, 10)
    passed = link.cut()
    with pytest.raises(ConnectionError):
        ask(namespaces, echo_port, 10, patience_s=1.0)
    cut = link.stats()
    assert (cut.up.packets, cut.down.packets) == (passed.up.packets, passed.down.packets)
    assert cut.up.lost > 0
    link.restore()
    ask(namespaces, echo_port, 10)
    assert link.stats().up.packets > cut.up.packets


def test_nothing_gets_out(namespaces: Namespaces, link: ShapedLink) -> None:
    for namespace in (namespaces.device, namespaces.gateway):
        assert not [line for line in ip("-n", namespace, "route").splitlines() if "default" in line]
        seen = {line.split(":")[1].strip() for line in ip("-n", namespace, "-o", "link").splitlines()}
        assert {name.partition("@")[0] for name in seen if not name.startswith(("lo", "ee"))} <= TUNNELS


# What some kernels put into every new namespace by themselves; all of them are down.
TUNNELS = {"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"}


def test_the_shaper_refuses_what_it_does_not_understand(link: ShapedLink, tmp_path: Path) -> None:
    bad = tmp_path / "bad.trace"
    bad.write_text("0 1\n-3 2\n")
    with pytest.raises(DeviceError, match="refuses"):
        link.begin(Shape(up_trace=str(bad)))
    link.begin(Shape())
    assert link.stats().error is None


STAND = """
import sys, time
from pathlib import Path
from benchmarks.reality.contention import ProcessorGroup
from benchmarks.reality.namespaces import Namespaces, inside
from benchmarks.reality.shaped_link import ShapedLink
import subprocess
try:
    with ProcessorGroup("stand") as group, Namespaces() as made, ShapedLink(made, log=Path(sys.argv[1])):
        words = inside(made.device, ["sh", "-c", "echo inside; exec sleep 600 >&-"])
        # Not standing before the process is where it belongs.
        within = subprocess.Popen(group.words(words), stdout=subprocess.PIPE, text=True)
        assert within.stdout.readline() == "inside\\n"
        print("standing", flush=True)
        time.sleep(600)
except KeyboardInterrupt:
    pass
"""


def standing(tmp_path: Path) -> subprocess.Popen[str]:
    """A program of its own that holds namespaces, a link and a group, with a process inside."""
    process = subprocess.Popen(
        [sys.executable, "-c", STAND, str(tmp_path / "shaper.log")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "standing\n"
    assert left_of(process.pid)
    return process


def left_of(pid: int) -> list[str]:
    """What a program with this number has left on the machine: namespaces, interfaces, groups."""
    stem = f"{PREFIX}{pid}-"
    names = [line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(stem)]
    names += [
        line for line in ip("-o", "link").splitlines() if f": eed{pid}" in line or f": eeg{pid}" in line
    ]
    return names + [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{stem}*")]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with standing(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    assert not left_of(process.pid)


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    with standing(tmp_path) as process:
        process.kill()
        process.wait(PATIENCE_S)
    remove_leftovers()
    until_s = time.monotonic() + PATIENCE_S
    while [each for each in left_of(process.pid) if "cgroup" not in each] and time.monotonic() < until_s:
        time.sleep(0.05)
    left = left_of(process.pid)
    assert all("cgroup" in each for each in left), left
    # Groups go when the next one is made beside them.
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from benchmarks.reality.contention import ProcessorGroup\nwith ProcessorGroup('next'): pass",
        ],
        cwd=ROOT,
        check=True,
    )
    assert not left_of(process.pid)


def test_an_interface_name_that_no_kernel_takes_is_refused() -> None:
    with pytest.raises(DeviceError, match="15 letters"):
        open_tun("a-name-much-too-long")


def test_somebody_without_rights_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DeviceError) as refused:
        require_root()
    assert refused.value.fix is not None
    assert "root" in refused.value.fix
