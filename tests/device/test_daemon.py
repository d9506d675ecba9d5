"""The daemon as a process of its own, on the tiny bundle."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image

from edgeexit.board.readings import Readings
from edgeexit.bundle import open_bundle
from edgeexit.bundle.encoding import digest_of, encode_manifest
from edgeexit.bundle.manifest import RiskControl
from edgeexit.decide.answer import Answer, Drop, OffloadOutcome, OffloadRecord, Place
from edgeexit.decide.drift import CERTIFIED, DriftState
from edgeexit.device.control import StatusMessage
from edgeexit.device.records import DriftFound, LogRecord, RunEnded, RunStarted, read_records
from edgeexit.transport import topics
from edgeexit.transport.broker import Broker
from edgeexit.transport.mqtt import ConnectionConfig, ConnectionEvents, MqttConnection, Subscription

pytestmark = [pytest.mark.process, pytest.mark.litert]

BUNDLE = Path(__file__).parents[1] / "data" / "tiny_bundle"

# Waits end as soon as what they wait for is there; this only bounds a test that fails.
PATIENCE_S = 60.0


class Running:
    """A daemon process and its files."""

    def __init__(
        self,
        folder: Path,
        settings: str,
        environment: dict[str, str] | None = None,
        program: Sequence[str] = ("-m", "edgeexit.device", "--config"),
    ) -> None:
        self.results = folder / "results.jsonl"
        self.config = folder / "config.toml"
        self.write(settings)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, str(self.config)],
                stderr=log,
                stdout=log,
                env={**os.environ, **(environment or {})},
            )

    def write(self, settings: str) -> None:
        self.config.write_text(
            f'bundle = "{BUNDLE}"\ndevice = "pi-1"\nboard = "generic-linux"\nreadings_interval_s = 0.2\n'
            f'{settings}\n[results]\npath = "{self.results}"\n',
            encoding="utf-8",
        )

    def records(self) -> list[LogRecord]:
        return list(read_records(self.results)) if self.results.exists() else []

    def answers(self) -> list[Answer]:
        return [record for record in self.records() if isinstance(record, Answer)]

    def wait_for_answers(self, count: int) -> list[Answer]:
        until_s = time.monotonic() + PATIENCE_S
        while len(answers := self.answers()) < count:
            assert time.monotonic() < until_s, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)
        return answers

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for_word(self, word: str) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while word not in self.said():
            assert time.monotonic() < until_s, self.said()
            time.sleep(0.02)

    def ends(self) -> int:
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(3)
    for index in range(20):
        Image.fromarray(noise.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{index:03}.png")
    return folder


def source(images: Path, more: str = "") -> str:
    return f'[source]\nkind = "directory"\npath = "{images}"\n{more}'


def accounted(records: list[LogRecord]) -> list[int]:
    """Numbers of all frames that were answered or dropped."""
    return sorted(record.frame for record in records if isinstance(record, Answer | Drop))


def test_a_folder_is_answered_once_image_by_image(tmp_path: Path, images: Path) -> None:
    (images / "007.png").write_bytes(b"not an image")
    with Running(tmp_path, source(images) + "\n[budget]\nlatency_ms = 5000.0") as running:
        assert running.ends() == 0, running.said()
        records = running.records()
    assert isinstance(records[0], RunStarted)
    assert isinstance(records[-1], RunEnded)
    assert any(isinstance(record, Readings) for record in records)
    answers = [record for record in records if isinstance(record, Answer)]
    assert [answer.source for answer in answers] == [f"{n:03}.png" for n in range(20) if n != 7]
    assert [drop.reason for drop in records if isinstance(drop, Drop)] == ["unreadable"]
    assert accounted(records) == list(range(20))
    assert (records[-1].answered, records[-1].dropped, records[-1].records_lost) == (19, 1, 0)
    assert all(answer.label is not None and answer.deadline_ms == 5000.0 for answer in answers)
    assert "answered 19" in running.said()


def test_a_video_is_answered_frame_by_frame(tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 50.0, (32, 32))
    noise = np.random.default_rng(4)
    for _ in range(10):
        writer.write(noise.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    writer.release()
    settings = f'[source]\nkind = "video"\npath = "{clip}"\n[budget]\nlatency_ms = 5000.0'
    with Running(tmp_path, settings) as running:
        assert running.ends() == 0, running.said()
        records = running.records()
    assert accounted(records) == list(range(10))
    sources = {record.source for record in records if isinstance(record, Answer | Drop)}
    assert sources == {f"clip.avi#{index}" for index in range(10)}


def test_sigterm_ends_it_in_order_with_every_frame_accounted_for(tmp_path: Path, images: Path) -> None:
    settings = source(images, "loop = true\nframe_rate_hz = 500.0") + "\n[play]\nfactor = 100.0"
    with Running(tmp_path, settings) as running:
        running.wait_for_answers(5)
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0, running.said()
        records = running.records()
    assert isinstance(records[-1], RunEnded)
    numbers = accounted(records)
    assert numbers == list(range(len(numbers)))
    drops = {record.reason for record in records if isinstance(record, Drop)}
    assert drops <= {"replaced", "shutdown"}


# The daemon with a runner whose stage `stage` never ends, as a driver or a dying card can make it.
HANGING = """
import sys, threading
from pathlib import Path
import edgeexit.device.daemon as daemon
from edgeexit.device.__main__ import main
from edgeexit.device.slot import FrameSlot

real, put = daemon.make_runner, FrameSlot.put

def put_and_tell(slot, frame):
    put(slot, frame)
    print(f"frame {frame.number} waits", flush=True)

FrameSlot.put = put_and_tell

class Hanging:
    def __init__(self, runner, stage):
        self.runner, self.stage, self.stage_count = runner, stage, runner.stage_count
        self.variant, self.close = runner.variant, runner.close
    def run(self, stage, tensors):
        if stage == self.stage:
            print("stage hangs", flush=True)
            threading.Event().wait()
        return self.runner.run(stage, tensors)

def make(*arguments):
    runner, stage_ms = real(*arguments)
    return Hanging(runner, int(sys.argv[1])), stage_ms

daemon.make_runner = make
sys.exit(main(["--config", sys.argv[2]]))
"""


@pytest.mark.parametrize(("stage", "answered", "dropped"), [(2, 1, 1), (0, 0, 2)])
def test_a_stage_that_hangs_does_not_keep_it_from_stopping(
    tmp_path: Path, images: Path, stage: int, answered: int, dropped: int
) -> None:
    settings = source(images) + "\n[budget]\nlatency_ms = 600000.0"
    with Running(tmp_path, settings, program=["-c", HANGING, str(stage)]) as running:
        running.wait_for_word("stage hangs")
        running.wait_for_word("frame 1 waits")
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0, running.said()
        records = running.records()
    # The first frame hangs: what was in hand is its answer. The second one waits in the slot.
    assert accounted(records) == [0, 1]
    assert isinstance(records[-1], RunEnded)
    assert (records[-1].answered, records[-1].dropped) == (answered, dropped)
    assert {record.reason for record in records if isinstance(record, Drop)} == {"shutdown"}


def test_no_network_at_all_is_degraded_never_down(tmp_path: Path, images: Path) -> None:
    settings = source(images) + '\n[broker]\nurl = "mqtt://127.0.0.1:1"'
    with Running(tmp_path, settings) as running:
        assert running.ends() == 0, running.said()
        answers = running.answers()
    assert len(answers) == 20
    assert not any(answer.link_up for answer in answers)


def test_a_played_board_is_slower_and_says_so(tmp_path: Path, images: Path) -> None:
    with Running(tmp_path, source(images) + '\n[play]\nboard = "raspberry-pi-4"') as running:
        assert running.ends() == 0, running.said()
        started = running.records()[0]
        assert "raspberry-pi-4" in running.said()
    assert isinstance(started, RunStarted)
    assert (started.played_board, started.slowdown) == ("raspberry-pi-4", 29.2)


def test_a_budget_file_rules_while_it_runs(tmp_path: Path, images: Path) -> None:
    budget = tmp_path / "budget.toml"
    budget.write_text("latency_ms = 900.0\n", encoding="utf-8")
    settings = source(images, "loop = true\nframe_rate_hz = 100.0")
    with Running(tmp_path, settings + f'\n[budget]\nkind = "file"\npath = "{budget}"') as running:
        running.wait_for_answers(3)
        budget.write_text("latency_ms = 700.0\n", encoding="utf-8")
        running.wait_for_answers(len(running.answers()) + 5)
        budget.write_text("nonsense\n", encoding="utf-8")
        running.wait_for_word("the budget before stays in force")
        running.wait_for_answers(len(running.answers()) + 5)
        deadlines = [answer.deadline_ms for answer in running.answers()]
    assert deadlines == sorted(deadlines, reverse=True)
    assert set(deadlines) == {900.0, 700.0}


def test_sighup_reads_budget_and_policy_again(tmp_path: Path, images: Path) -> None:
    settings = source(images, "loop = true\nframe_rate_hz = 100.0")
    with Running(tmp_path, settings + "\n[budget]\nlatency_ms = 900.0") as running:
        running.wait_for_answers(3)
        running.write(settings + '\n[budget]\nlatency_ms = 600.0\n[policy]\nname = "first-exit"')
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_word("were read again")
        running.wait_for_answers(len(running.answers()) + 5)
        last = running.answers()[-1]
        assert (last.deadline_ms, last.exit) == (600.0, 0)
        running.write(settings + "\n[budget]\nlatencyms = 5")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_word("stay as they were")
        running.wait_for_answers(len(running.answers()) + 3)
        assert running.answers()[-1].deadline_ms == 600.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(PATIENCE_S)
        yield channel


def test_the_service_manager_is_told_from_the_loop(
    tmp_path: Path, images: Path, manager: socket.socket
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with Running(tmp_path, source(images, "loop = true\nframe_rate_hz = 50.0"), environment) as running:
        heard: list[str] = []

        def hear_until(word: str) -> None:
            while not heard or not heard[-1].startswith(word):
                heard.append(manager.recv(4096).decode())

        hear_until("READY=1")
        assert not any(said.startswith("WATCHDOG") for said in heard), "ready before the first beat"
        hear_until("WATCHDOG=1")
        hear_until("STATUS=answered")
        hear_until("WATCHDOG=1")
        running.process.send_signal(signal.SIGTERM)
        hear_until("STOPPING=1")
        assert running.ends() == 0


@pytest.mark.parametrize(
    ("settings", "status", "word"),
    [
        ('[source]\nkind = "directory"\npath = "/nowhere"', 1, "no image in /nowhere"),
        ('[source]\nkind = "video"\npath = "/nowhere.avi"', 1, "no video at /nowhere.avi"),
        ('[source]\nkind = "directory"\npath = "."\nframerate = 3', 2, "unknown key source.framerate"),
        ('[source]\nkind = "directory"\npath = "."\n[play]\nboard = "jetson-orin-nano"', 2, "play"),
    ],
)
def test_what_cannot_start_says_why_without_a_traceback(
    tmp_path: Path, settings: str, status: int, word: str
) -> None:
    with Running(tmp_path, settings) as running:
        assert running.ends() == status, running.said()
        assert word in running.said()
        assert "Traceback" not in running.said()


def test_a_bundle_that_was_changed_is_refused(tmp_path: Path, images: Path) -> None:
    with Running(tmp_path, source(images), {"EDGEEXIT__BUNDLE": str(tmp_path)}) as running:
        assert running.ends() == 4, running.said()
        assert "Traceback" not in running.said()


def test_a_second_signal_ends_it_at_once(tmp_path: Path, images: Path) -> None:
    settings = source(images, "loop = true\nframe_rate_hz = 100.0")
    with Running(tmp_path, settings) as running:
        running.wait_for_answers(1)
        running.process.send_signal(signal.SIGSTOP)  # so that both signals are pending together
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGCONT)
        assert running.ends() in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def test_the_daemon_loads_neither_the_command_line_nor_the_workstation(tmp_path: Path) -> None:
    code = "import sys, edgeexit.device.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"typer", "rich", "torch", "matplotlib", "PIL", "cv2", "psutil", "jax"})


GATEWAY = """
import sys
from pathlib import Path
from edgeexit.gateway.config import read_config
from edgeexit.gateway.program import run_gateway
sys.exit(run_gateway(read_config(None, {"store": Path(sys.argv[1]), "id": "gw-1", "broker": sys.argv[2]})))
"""


def gateway_process(store: Path, address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", GATEWAY, str(store), address], stderr=subprocess.DEVNULL)


@pytest.mark.broker
def test_a_gateway_that_is_killed_is_done_without_and_used_again_when_it_is_back(
    tmp_path: Path, images: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(BUNDLE, store / "tiny")
    policy = '[policy]\nname = "always-offload"\n[budget]\nlatency_ms = 2000.0'
    paced = source(images, "loop = true\nframe_rate_hz = 20.0")
    with (
        Broker() as broker,
        Running(tmp_path, f'{paced}\n{policy}\n[broker]\nurl = "{broker.address}"') as running,
    ):

        def wait_for(place: Place) -> None:
            """Wait until a frame that is captured from now on is answered there."""
            known = len(running.answers())
            until_s = time.monotonic() + PATIENCE_S
            while not any(answer.place is place for answer in running.answers()[known:]):
                assert time.monotonic() < until_s, running.said()
                time.sleep(0.05)

        for _ in range(2):
            gateway = gateway_process(store, str(broker.address))
            try:
                wait_for(Place.GATEWAY)
            finally:
                gateway.kill()
                gateway.wait()
            wait_for(Place.DEVICE)
        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0, running.said()
        records = running.records()
    numbers = accounted(records)
    assert numbers == list(range(len(numbers)))
    assert all(answer.exit == 2 for answer in running.answers() if answer.place is Place.GATEWAY)
    offloads = [record for record in records if isinstance(record, OffloadRecord)]
    assert any(record.outcome is OffloadOutcome.USED for record in offloads)


def drifted_bundle(to: Path) -> Path:
    """The tiny bundle in float32 alone, with a promise about its first exit that does not hold."""
    shutil.copytree(BUNDLE, to)
    manifest = open_bundle(BUNDLE).manifest
    replace = msgspec.structs.replace
    broken = RiskControl(
        variant="f32",
        method="learn-then-test",
        risk="inconsistency",
        epsilon=0.02,
        delta=0.1,
        samples=2000,
        thresholds=(0.2, 0.2, 0.0),
        empirical_risk=0.01,
        data="images of another world",
    )
    manifest = replace(
        manifest,
        stages=tuple(replace(each, variants=each.variants[:1]) for each in manifest.stages),
        exits=tuple(replace(each, calibrations=each.calibrations[:1]) for each in manifest.exits),
        risk_controls=(broken,),
    )
    (to / "manifest.json").write_bytes(encode_manifest(manifest))
    (to / "manifest.json.sha256").write_text(f"{digest_of(manifest)}  manifest.json\n", encoding="ascii")
    return to


# How far it goes depends on how many audits end before the gateway is killed.
CLOSED_DOWN = (DriftState.TIGHTENED.value, DriftState.STOPPED.value)


def tightened(metrics: bytes) -> bool:
    return any(f'"state":"{state}"'.encode() in metrics for state in CLOSED_DOWN)


def says_drifted(status: bytes) -> bool:
    said = msgspec.json.decode(status, type=StatusMessage)
    return said.state == "degraded" and "drifted" in (said.why or "")


@pytest.mark.broker
def test_early_exits_that_have_drifted_are_reported_and_tightened(tmp_path: Path, images: Path) -> None:
    bundle = drifted_bundle(tmp_path / "store" / "tiny")
    settings = (
        source(images, "loop = true\nframe_rate_hz = 100.0")
        + "\n[budget]\nlatency_ms = 20000.0\n[offload]\nbyte_price = 1.0"
        + '\n[policy]\nepsilon = 0.05\nguarantee = "inconsistency"\naudit_fraction = 1.0'
    )
    heard: queue.Queue[bytes] = queue.Queue()

    messages: list[bytes] = []

    def hear_until(wanted: Callable[[bytes], bool]) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while not any(wanted(message) for message in messages):
            messages.append(heard.get(timeout=max(0.0, until_s - time.monotonic())))

    with Broker() as broker:
        watch = ConnectionConfig(
            address=broker.address,
            client_id="watch",
            subscriptions=(
                Subscription(topics.device_status("pi-1")),
                Subscription(topics.device_metrics("pi-1")),
            ),
        )
        with (
            MqttConnection(watch, ConnectionEvents(message=lambda said: heard.put(said.payload))),
            Running(
                tmp_path,
                f'{settings}\n[broker]\nurl = "{broker.address}"',
                {"EDGEEXIT__BUNDLE": str(bundle)},
            ) as running,
        ):
            # Without a gateway frames leave early, unaudited, and nothing is held against them.
            assert {answer.reason for answer in running.wait_for_answers(20)} == {CERTIFIED}
            assert not any(isinstance(record, DriftFound) for record in running.records())
            gateway = gateway_process(bundle.parent, str(broker.address))
            try:
                running.wait_for_word("thresholds are tightened")
            finally:
                gateway.kill()
                gateway.wait()
            running.wait_for_answers(len(running.answers()) + 30)
            hear_until(lambda said: b'"disagreements"' in said and tightened(said))
            hear_until(lambda said: b'"why"' in said and says_drifted(said))
            running.process.send_signal(signal.SIGTERM)
            assert running.ends() == 0, running.said()
            records = running.records()
            said = running.said()
    found = [record for record in records if isinstance(record, DriftFound)]
    assert found[0].state is DriftState.TIGHTENED
    assert found[0].risk > found[0].epsilon == 0.02
    in_force: tuple[float, ...] = (0.2, 0.2, 0.0)
    for record in records:
        if isinstance(record, DriftFound):
            assert all(now > then for now, then in zip(record.thresholds[:-1], in_force[:-1], strict=True))
            in_force = record.thresholds
        elif isinstance(record, Answer) and record.reason == CERTIFIED:
            assert record.score >= in_force[record.exit]
    audits = [each for each in records if isinstance(each, OffloadRecord) and each.reason == "audit"]
    assert len(audits) >= sum(each.disagreements for each in found)
    assert "convert the network again" in said
    assert any(f"early exits: {state}" in said for state in CLOSED_DOWN)
    answers = [record for record in records if isinstance(record, Answer)]
    assert all(answer.on_time for answer in answers if answer.reason == CERTIFIED)
