"""A device in the test's own process, gateways as processes, a real broker, and a link that can be shaken."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeexit.bundle import Bundle, digest_of, encode_manifest, open_bundle
from edgeexit.decide.answer import Answer, OffloadRecord, Place, Record
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.decision import Action, Decision, Policy, Situation
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.engine import Engine, Frame
from edgeexit.runner.protocol import Runner, StageOutput, Tensors
from edgeexit.runner.selection import open_verified
from edgeexit.transport import topics
from edgeexit.transport.address import BrokerAddress
from edgeexit.transport.adverts import Advert, decode_advert
from edgeexit.transport.broker import Broker, BrokerKind
from edgeexit.transport.exchange import ServedBundle
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection, Subscription
from edgeexit.transport.offload import MqttTransport, OffloadConfig
from edgeexit.transport.protocol import LinkStatus, OffloadReply, OffloadRequest, Pong
from edgeexit.transport.publication import Publication

HERE = Path(__file__).parent
PATIENCE_S = 60.0

DEADLINE_MS = 3000.0
# The policy is shown this much less than is left. These tests are about faults, not about milliseconds, and
# a virtual machine busy with other things was seen to stand still for 0.66 s.
SPARE_MS = 2700.0
# Stage 0 is quick, the others cannot be done by the deadline: only a gateway gets to the last exit.
DEVICE_STAGE_MS = (20.0, 9000.0, 9000.0)


def monotonic_ms() -> float:
    return time.monotonic() * 1000.0


class ShakyLink:
    """A TCP proxy on this machine whose traffic can be held back, as on a half-open link, or cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._whole = True
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress("127.0.0.1", self.port)

    def hold(self) -> None:
        """Let nothing through either way; connections stay open and say nothing."""
        self._flowing.clear()

    def release(self) -> None:
        """Let what was held back through."""
        self._flowing.set()

    def cut(self) -> None:
        """End every connection, and every new one at once."""
        with self._lock:
            self._whole = False
            ended = list(self._sockets)
        for sock in ended:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let new connections in again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """End everything, threads included."""
        self.release()
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                whole = self._whole
            try:
                if not whole:
                    raise OSError("cut")
                far = socket.create_connection(("127.0.0.1", self._target_port), timeout=PATIENCE_S)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._sockets |= {near, far}
            self._start(self._carry, near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *sockets: socket.socket) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=target, args=sockets, daemon=True)
        self._threads.append(thread)
        thread.start()


class SlowRunner:
    """A runner that sleeps before each stage."""

    def __init__(self, runner: Runner, stage_ms: tuple[float, ...]) -> None:
        self._runner = runner
        self._stage_ms = stage_ms

    @property
    def stage_count(self) -> int:
        return self._runner.stage_count

    def variant(self, stage: int) -> str:
        return self._runner.variant(stage)

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        time.sleep(self._stage_ms[stage] / 1000.0)
        return self._runner.run(stage, tensors)

    def close(self) -> None:
        self._runner.close()


class SparingPolicy:
    """Shows another policy less time than there is, and never starts a stage that cannot end in time.

    What becomes of a stage that overruns is the engine's own affair; here it would only bring in the
    precision of the machine's timers.
    """

    def __init__(self, inner: Policy) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def anytime(self) -> bool:
        return True

    def decide(self, situation: Situation) -> Decision:
        choice = self._inner.decide(replace(situation, remaining_ms=situation.remaining_ms - SPARE_MS))
        if choice.action is not Action.CONTINUE or situation.evidence is None:
            return choice
        if situation.in_flight is None:
            return Decision(Action.EXIT, "no-time")
        return Decision(Action.WAIT, "reply-awaited", wait_ms=20.0)


class WatchedTransport:
    """The MQTT transport, its futures kept."""

    def __init__(self, inner: MqttTransport) -> None:
        self.inner = inner
        self.futures: list[Future[OffloadReply]] = []

    def open(self) -> None:
        self.inner.open()

    def status(self) -> LinkStatus:
        return self.inner.status()

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        future = self.inner.submit(request)
        self.futures.append(future)
        return future

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        return self.inner.withdraw(reply)

    def probe(self, payload_bytes: int) -> Future[Pong]:
        return self.inner.probe(payload_bytes)

    def close(self) -> None:
        self.inner.close()


class Device:
    """An engine with its transport, and the records of every frame it was given."""

    def __init__(
        self, bundle: Bundle, broker: BrokerAddress, *, pool: bool = False, policy: Policy | None = None
    ) -> None:
        manifest = bundle.manifest
        runner, _ = open_verified(bundle)
        self._runner = SlowRunner(runner, DEVICE_STAGE_MS)
        variants = [runner.variant(stage) for stage in range(manifest.stage_count)]
        config = OffloadConfig(
            broker=broker, device="porch", pool=pool, late_ms=1000.0, keepalive_s=2, backoff_s=(0.1, 1.0)
        )
        served = ServedBundle(bundle.digest, manifest.stage_count, output_size=len(manifest.labels))
        self.transport = WatchedTransport(MqttTransport(config, served, clock=monotonic_ms))
        self.records: list[Record] = []
        self.engine = Engine(
            bundle,
            self._runner,
            policy=policy or SparingPolicy(HedgedGain(tables=quality_tables(manifest.exits, variants))),
            latency=LatencyModel(DEVICE_STAGE_MS),
            budgets=FixedBudget(Budget(DEADLINE_MS)),
            clock=monotonic_ms,
            emit=self.records.append,
            transport=self.transport,
        )
        self._frames = 0
        self._random = np.random.default_rng(3)

    @property
    def answers(self) -> list[Answer]:
        return [record for record in list(self.records) if isinstance(record, Answer)]

    @property
    def offloads(self) -> list[OffloadRecord]:
        return [record for record in list(self.records) if isinstance(record, OffloadRecord)]

    def open(self) -> None:
        """Start the engine; its transport connects in its own time."""
        self.engine.open()

    def close(self) -> None:
        """End the engine and its transport, free the stages."""
        self.engine.close()
        self._runner.close()

    def answer(self) -> Answer:
        """Answer one more frame, and use the pause after it as the daemon does."""
        self._frames += 1
        answer = self.engine.answer(Frame(self._frames, "test", monotonic_ms(), self._image()))
        time.sleep(0.005)
        self.engine.idle()
        return answer

    def answer_for(self, seconds: float) -> list[Answer]:
        """Answer frames for so long."""
        end_s = time.monotonic() + seconds
        answers = [self.answer()]
        while time.monotonic() < end_s:
            answers.append(self.answer())
        return answers

    def answer_until(self, wanted: Callable[[Answer], bool]) -> Answer:
        """Answer frames until one is as wanted."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            answer = self.answer()
            if wanted(answer):
                return answer
        raise AssertionError(f"not within {PATIENCE_S} s: link {self.transport.status()}")

    def answer_until_offloaded(self) -> Answer:
        """Answer frames until a gateway's answer is used."""
        return self.answer_until(lambda answer: answer.place is Place.GATEWAY)

    def check_every_frame(self) -> None:
        """Every frame so far has exactly one answer, by its deadline."""
        answers = self.answers
        assert sorted(answer.frame for answer in answers) == list(range(1, self._frames + 1))
        late = [answer for answer in answers if not answer.on_time]
        assert not late, f"{len(late)} of {len(answers)} late: {late[:3]}"

    def check_nothing_is_left(self) -> None:
        """No request is under way, no credit held, once there is nothing to wait for."""
        end_s = time.monotonic() + PATIENCE_S
        while not all(future.done() for future in self.transport.futures):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        while self.transport.status().in_flight or self.transport.status().in_flight_bytes:
            assert time.monotonic() < end_s
            time.sleep(0.05)

    def _image(self) -> NDArray[np.uint8]:
        """Four patches of stripes, lying or standing, and noise."""
        stripes = np.zeros((4, 4))
        stripes[::2] = 0.4
        patches = [stripes if self._random.integers(2) else stripes.T for _ in range(4)]
        image = 0.3 + np.block([patches[:2], patches[2:]]) + self._random.normal(0.0, 0.2, (8, 8))
        pixels: NDArray[np.uint8] = (np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
        return pixels


class GatewayProcess:
    """One of the gateways of this directory, as a process."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def order(self, word: str) -> None:
        """Write a line to its standard input; it is obeyed when this returns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{word}\n"

    def stop(self) -> None:
        """SIGSTOP: from here on it answers nothing, and nobody is told."""
        self._process.send_signal(signal.SIGSTOP)

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it, however it is."""
        self._process.kill()
        self._process.wait(PATIENCE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@dataclass
class House:
    """All parts of one test."""

    broker: Broker
    link: ShakyLink
    store: Path
    bundle: Bundle
    parts: contextlib.ExitStack

    def slow_gateway(
        self, *, stage_ms: float = 10.0, store: Path | None = None, when: str = "always"
    ) -> GatewayProcess:
        """A real gateway; the same id each time it is started."""
        arguments = (str(self.broker.address), "gw-1", str(store or self.store), str(stage_ms), when)
        return self._started(GatewayProcess("slow_gateway.py", *arguments))

    def crooked_gateway(self) -> GatewayProcess:
        """One that misbehaves when told to."""
        arguments = (str(self.broker.address), "gw-1", str(self.bundle.path))
        return self._started(GatewayProcess("crooked_gateway.py", *arguments))

    def wait_for_ready(self) -> None:
        """Wait until a gateway has said that it is ready, the pool included."""
        self.wait_for_advert(lambda advert: advert.state == "ready")

    def wait_for_advert(self, wanted: Callable[[Advert], bool]) -> None:
        """Wait until a gateway has said this."""
        heard: Queue[Publication] = Queue()
        watch = ConnectionConfig(
            address=self.broker.address,
            client_id="watch",
            subscriptions=(Subscription(topics.GATEWAY_STATUS_FILTER),),
        )
        with MqttConnection(watch, ConnectionEvents(message=heard.put)):
            while not wanted(decode_advert(heard.get(timeout=PATIENCE_S).payload)):
                pass

    def device(self, policy: Policy | None = None, *, shaky: bool = False, pool: bool = False) -> Device:
        """A device, its engine open; with the policy that ships where none is given."""
        address = self.link.address if shaky else self.broker.address
        device = Device(self.bundle, address, pool=pool, policy=policy)
        self.parts.callback(device.close)
        device.open()
        return device

    def other_bundle(self, to: Path) -> Bundle:
        """The same network as another bundle."""
        shutil.copytree(self.bundle.path, to)
        manifest = msgspec.structs.replace(self.bundle.manifest, serial=self.bundle.manifest.serial + 1)
        (to / "manifest.json").write_bytes(encode_manifest(manifest))
        (to / "manifest.json.sha256").write_text(f"{digest_of(manifest)}  manifest.json\n", encoding="ascii")
        return open_bundle(to)

    def _started(self, gateway: GatewayProcess) -> GatewayProcess:
        self.parts.callback(gateway.close)
        return gateway


def open_files() -> list[str]:
    """What every file descriptor of this process is of."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


@pytest.fixture(params=["mosquitto"])
def house(request: pytest.FixtureRequest, tmp_path: Path, tiny_bundle: Bundle) -> Iterator[House]:
    """Broker, link and store; nothing may be left of the device when the test is over."""
    kind: BrokerKind = request.param
    store = tmp_path / "store"
    shutil.copytree(tiny_bundle.path, store / "tiny")
    threads_before, files_before = threading.active_count(), open_files()
    with contextlib.ExitStack() as parts:
        broker = parts.enter_context(Broker(kind=kind))
        link = ShakyLink(broker.port)
        parts.callback(link.close)
        yield House(broker, link, store, tiny_bundle, parts)
    end_s = time.monotonic() + PATIENCE_S
    while threading.active_count() > threads_before or len(open_files()) > len(files_before):
        assert time.monotonic() < end_s, "\n".join(
            [*map(str, threading.enumerate()), "before", *files_before, "after", *open_files()]
        )
        time.sleep(0.05)
