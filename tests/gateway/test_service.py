"""The gateway without a broker: every kind of request meets its one answer, or none where none is due."""

from __future__ import annotations

import logging
import queue
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle
from edgeexit.errors import RunnerError
from edgeexit.gateway.ends import Ends
from edgeexit.gateway.loaded import LoadedBundles
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.request import Request
from edgeexit.gateway.serve import Served
from edgeexit.gateway.service import GatewayService
from edgeexit.runner.protocol import StageOutput, Tensors
from edgeexit.transport import frames, wire
from edgeexit.transport.admission import Lapsed, Refusal, Ticket
from edgeexit.transport.service_times import ServiceTimes
from edgeexit.transport.status import Status
from edgeexit.transport.topics import InferTopic
from edgeexit.transport.wire import Frame, Kind, WireTensor

if TYPE_CHECKING:
    from tests.gateway.conftest import InventedTime

PATIENCE_S = 60.0


class GatedRunner:
    """A runner that answers k at exit k, once its gate is open."""

    def __init__(self, bundle: Bundle, gate: threading.Event, entered: threading.Semaphore) -> None:
        self._bundle = bundle
        self._gate = gate
        self._entered = entered
        self.fail_at: int | None = None

    @property
    def stage_count(self) -> int:
        return self._bundle.manifest.stage_count

    def variant(self, stage: int) -> str:
        return "f32"

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        self._entered.release()
        assert self._gate.wait(PATIENCE_S)
        if self.fail_at == stage:
            raise RunnerError("stage failed", stage=stage)
        manifest = self._bundle.manifest
        specs = () if stage == self.stage_count - 1 else manifest.boundaries[stage + 1].tensors
        classes = manifest.exits[stage].output.shape[1]
        return StageOutput(
            {spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs},
            np.full(classes, stage, dtype=np.float32),  # (C,)
        )

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class Rig:
    """A service over gated runners, and the frames that came back."""

    bundle: Bundle
    service: GatewayService
    bundles: LoadedBundles
    gate: threading.Event
    entered: threading.Semaphore
    runners: list[GatedRunner]
    time: InventedTime
    replies: queue.Queue[Frame] = field(default_factory=queue.Queue)
    serial: int = 0
    sent: int = 0
    ends: list[bytes | None] = field(default_factory=list)

    def request(
        self,
        *,
        boundary: int = 0,
        last_stage: int = 255,
        budget_ms: float | None = 10_000.0,
        digest: str | None = None,
        tensors: list[WireTensor] | None = None,
        request_id: bytes | None = None,
    ) -> bytes:
        self.serial += 1
        if tensors is None:
            specs = self.bundle.manifest.boundaries[min(boundary, 2)].tensors
            tensors = [WireTensor.of(spec.name, np.zeros(spec.shape, spec.dtype)) for spec in specs]
        return frames.request(
            request_id or self.serial.to_bytes(16, "big"),
            bundle_digest=digest or self.bundle.digest,
            boundary=boundary,
            last_stage=last_stage,
            frame=self.serial,
            budget_left_ms=budget_ms,
            tensors=tensors,
        )

    def send(
        self,
        data: bytes,
        *,
        digest12: str | None = None,
        stage: int = 0,
        correlation: bytes | None = None,
        asker: str = "porch",
    ) -> None:
        topic = InferTopic(None, digest12 or self.bundle.short_digest, stage)
        self.sent += 1
        self.service.handle(data, topic, self.take_in, asker=asker, correlation=correlation)

    def take_in(self, data: bytes | None, use_s: int) -> None:
        assert use_s >= 1
        self.ends.append(data)
        if data is not None:
            self.replies.put(wire.decode(data))

    def reply(self) -> Frame:
        return self.replies.get(timeout=PATIENCE_S)

    def status(self) -> Status:
        return self.reply().header.status

    def wait_until_serving(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE_S)


@pytest.fixture
def rig(tiny_bundle: Bundle, time: InventedTime) -> Iterator[Rig]:
    gate, entered = threading.Event(), threading.Semaphore(0)
    gate.set()
    runners: list[GatedRunner] = []

    def open_runners(bundle: Bundle, count: int) -> tuple[GatedRunner, ...]:
        made = tuple(GatedRunner(bundle, gate, entered) for _ in range(count))
        runners.extend(made)
        return made

    times = ServiceTimes()
    bundles = LoadedBundles(open_runners, count=1, times=times, clock=time)
    bundles.load(tiny_bundle)
    while entered.acquire(blocking=False):
        pass
    log = EventLog(logging.getLogger("edgeexit.test"), time)
    service = GatewayService(bundles, times, workers=1, queue_limit=4, clock=time, log=log)
    service.open()
    rig = Rig(tiny_bundle, service, bundles, gate, entered, runners, time)
    yield rig
    gate.set()
    service.close()
    assert len(rig.ends) == rig.sent == sum(service.counts.values())  # every message met exactly one end
    bundles.close()
    for thread in threading.enumerate():
        if thread.name.startswith("gateway-worker"):
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def test_a_patient_request_makes_way_between_two_stages(rig: Rig) -> None:
    rig.gate.clear()
    rig.send(rig.request(budget_ms=10_000.0))
    rig.wait_until_serving()
    rig.send(rig.request(budget_ms=5_000.0))
    rig.gate.set()
    first, second = rig.reply(), rig.reply()
    assert (first.header.frame, second.header.frame) == (2, 1)
    assert first.header.stage_out == second.header.stage_out == 2
    assert rig.service.load().queue_depth == 0


def test_what_a_paused_request_has_reached_is_its_answer_when_time_runs_out(
    rig: Rig, time: InventedTime
) -> None:
    loaded = rig.bundles.find(rig.bundle.short_digest)
    assert loaded is not None
    replies: list[Frame] = []

    def take_in(data: bytes | None, _: int) -> None:
        assert data is not None
        replies.append(wire.decode(data))

    reached = Served(1, {}, 0, np.zeros(3, dtype=np.float32))
    request = Request(wire.decode(rig.request()), loaded, take_in, reached, compute_ms=3.0)
    ticket = Ticket(b"1", "porch", time.now_ms - 10.0, time.now_ms - 1.0, 2.0, 4.0, request)
    Ends(EventLog(logging.getLogger("edgeexit.test"), time), time).turn_away(
        (Lapsed(ticket, Refusal(Status.TOO_LATE)),)
    )
    header = replies[0].header
    assert (header.status, header.stage_out) == (Status.OK, 0)
    assert (header.queue_ms, header.compute_ms) == (7.0, 3.0)


@pytest.mark.parametrize(
    ("boundary", "last_stage", "exit_"), [(0, 255, 2), (0, 2, 2), (0, 1, 1), (2, 255, 2)]
)
def test_request_is_answered_by_the_last_stage_asked_for(
    rig: Rig, boundary: int, last_stage: int, exit_: int
) -> None:
    rig.send(rig.request(boundary=boundary, last_stage=last_stage), stage=boundary)
    reply = rig.reply()
    assert (reply.header.kind, reply.header.status) == (Kind.REPLY, Status.OK)
    assert reply.header.request_id == rig.serial.to_bytes(16, "big")
    assert (reply.header.stage_in, reply.header.stage_out) == (boundary, exit_)
    assert frames.output_of(reply).tolist() == [float(exit_)] * 3
    assert reply.header.queue_ms is not None
    assert reply.header.compute_ms is not None


def test_budget_without_a_limit_is_served(rig: Rig) -> None:
    rig.send(rig.request(budget_ms=None))
    assert rig.status() is Status.OK


def test_absurd_budget_is_served(rig: Rig) -> None:
    rig.send(rig.request(budget_ms=1e300))
    assert rig.status() is Status.OK


def test_unknown_bundle_and_stage_are_refused(rig: Rig) -> None:
    other = "ab" * 32
    rig.send(rig.request(digest=other), digest12=other[:12])
    assert rig.status() is Status.UNKNOWN_BUNDLE
    rig.send(rig.request(boundary=3), stage=3)
    assert rig.status() is Status.UNKNOWN_BUNDLE
    rig.send(rig.request(boundary=2, last_stage=1), stage=2)
    assert rig.status() is Status.UNKNOWN_BUNDLE


def test_topic_and_header_must_agree(rig: Rig) -> None:
    rig.send(rig.request(digest="ab" * 32))
    assert rig.status() is Status.DIGEST_MISMATCH
    rig.send(rig.request(boundary=1), stage=0)
    assert rig.status() is Status.DIGEST_MISMATCH
    near = rig.bundle.short_digest + "0" * 52
    rig.send(rig.request(digest=near))
    assert rig.status() is Status.DIGEST_MISMATCH


def test_unreadable_messages_are_answered_by_their_correlation(rig: Rig) -> None:
    whole = rig.request()
    later = whole[:4] + bytes([wire.VERSION + 1]) + whole[5:]
    too_large = whole + bytes(wire.FRAME_CAP_BYTES)
    for data, status in (
        (whole[:-1], Status.MALFORMED),
        (b"not a frame at all", Status.MALFORMED),
        (later, Status.UNSUPPORTED_VERSION),
        (too_large, Status.TOO_LARGE),
    ):
        rig.send(data, correlation=b"c" * 16)
        reply = rig.reply()
        assert (reply.header.status, reply.header.request_id) == (status, b"c" * 16)
    rig.send(b"not a frame at all")
    rig.send(b"not a frame at all", correlation=b"short")
    assert rig.replies.empty()
    assert rig.service.counts["malformed"] == 4


@pytest.mark.parametrize("shape", [(1, 1, 8, 9), (1, 64), (1,)])
def test_tensor_of_another_shape_is_malformed(rig: Rig, shape: tuple[int, ...]) -> None:
    name = rig.bundle.manifest.boundaries[0].tensors[0].name
    rig.send(rig.request(tensors=[WireTensor.of(name, np.zeros(shape, np.float32))]))
    assert rig.status() is Status.MALFORMED


def test_missing_and_surplus_tensors_are_malformed(rig: Rig) -> None:
    spec = rig.bundle.manifest.boundaries[0].tensors[0]
    right = WireTensor.of(spec.name, np.zeros(spec.shape, np.float32))
    for tensors in ([], [right, WireTensor.of("more", np.zeros(1, np.float32))]):
        rig.send(rig.request(tensors=tensors))
        assert rig.status() is Status.MALFORMED


def test_nothing_left_is_too_late(rig: Rig) -> None:
    rig.send(rig.request(budget_ms=0.0))
    assert rig.status() is Status.TOO_LATE
    rig.send(rig.request())
    assert rig.status() is Status.OK
    assert rig.replies.empty()
    assert rig.service.counts["too_late"] == 1


def test_duplicates_are_answered_once_and_other_devices_are_no_duplicates(rig: Rig) -> None:
    data = rig.request(request_id=b"r" * 16)
    for _ in range(3):
        rig.send(data)
    rig.send(data, asker="garage")
    assert [rig.status(), rig.status()] == [Status.OK, Status.OK]
    assert rig.replies.empty()
    assert rig.service.counts["duplicate"] == 2


def test_overload_is_busy_with_a_time_to_come_back(rig: Rig) -> None:
    rig.gate.clear()
    rig.send(rig.request())
    rig.wait_until_serving()
    for _ in range(2):
        rig.send(rig.request())
    rig.send(rig.request())
    refusal = rig.reply().header
    assert refusal.status is Status.BUSY
    assert refusal.retry_after_ms is not None
    assert refusal.retry_after_ms > 0.0
    assert rig.service.load().queue_depth == 2
    assert rig.service.load().free_slots == 0
    rig.gate.set()
    assert [rig.status() for _ in range(3)] == [Status.OK] * 3


def test_request_whose_time_ran_out_in_the_queue_is_too_late(rig: Rig) -> None:
    rig.gate.clear()
    rig.send(rig.request())
    rig.wait_until_serving()
    rig.send(rig.request(budget_ms=50.0))
    rig.time.now_ms += 51.0
    rig.gate.set()
    replies = {header.status: header for header in (rig.reply().header, rig.reply().header)}
    # What it cost the gateway is told: the network took none of it.
    assert (replies[Status.TOO_LATE].queue_ms, replies[Status.TOO_LATE].compute_ms) == (51.0, 0.0)
    assert replies.keys() == {Status.OK, Status.TOO_LATE}
    rig.send(rig.request())
    assert rig.status() is Status.OK
    assert rig.service.counts["too_late"] == 1


def cancel(data: bytes) -> bytes:
    asked = wire.decode(data).header
    return frames.cancel(asked.request_id, bundle_digest=asked.bundle_digest, boundary=asked.stage_in)


def test_a_request_that_waits_is_cancelled_at_once(rig: Rig) -> None:
    rig.gate.clear()
    rig.send(rig.request())
    rig.wait_until_serving()
    waits = rig.request()
    rig.send(waits)
    rig.time.now_ms += 7.0
    rig.send(cancel(waits))
    ended = rig.reply().header  # while the other one is still being served
    assert (ended.status, ended.frame, ended.queue_ms, ended.compute_ms) == (Status.CANCELLED, 2, 7.0, 0.0)
    assert rig.service.load().queue_depth == 0
    rig.send(waits)  # a copy that comes after it
    rig.gate.set()
    assert rig.status() is Status.OK
    counts = rig.service.counts
    assert (counts["cancel"], counts["cancelled"], counts["duplicate"]) == (1, 1, 1)


def test_a_request_that_runs_is_cancelled_between_two_stages(rig: Rig) -> None:
    rig.gate.clear()
    runs = rig.request()
    rig.send(runs)
    rig.wait_until_serving()
    for _ in range(2):
        rig.send(cancel(runs))
    rig.gate.set()
    assert rig.status() is Status.CANCELLED
    rig.service.drain(PATIENCE_S)
    assert not rig.entered.acquire(blocking=False), "its second stage never ran"
    assert rig.service.load().free_slots == 1
    assert rig.service.counts["cancelled"] == 1


def test_a_paused_request_is_cancelled_where_it_waits(rig: Rig) -> None:
    rig.gate.clear()
    patient, urgent = rig.request(budget_ms=10_000.0), rig.request(budget_ms=5_000.0)
    rig.send(patient)
    rig.wait_until_serving()
    rig.send(urgent)
    rig.send(cancel(patient))
    rig.gate.set()
    ends = {header.frame: header.status for header in (rig.reply().header, rig.reply().header)}
    assert ends == {1: Status.CANCELLED, 2: Status.OK}


def test_nobody_cancels_what_is_not_theirs_or_not_there(rig: Rig) -> None:
    rig.gate.clear()
    runs, waits = rig.request(), rig.request()
    rig.send(runs)
    rig.wait_until_serving()
    early = rig.request()
    rig.send(cancel(early))  # overtakes its request, which is then served
    rig.send(waits)
    for data in (runs, waits):
        rig.send(cancel(data), asker="garage")
        rig.send(cancel(data), asker="")
    rig.send(early)
    rig.gate.set()
    assert [rig.status() for _ in range(3)] == [Status.OK] * 3
    rig.send(cancel(runs))  # follows its reply
    rig.send(rig.request())
    assert rig.status() is Status.OK
    assert rig.replies.empty()
    assert "cancelled" not in rig.service.counts
    assert rig.service.counts["cancel"] == 6


def test_a_kind_that_a_gateway_does_not_know_is_one_malformed_message_without_reply(rig: Rig) -> None:
    # As gateways of before see a cancel: it names no correlation that an answer could go to.
    data = bytearray(cancel(rig.request()))
    assert data[17] == Kind.CANCEL
    data[17] = 5
    length = int.from_bytes(data[8:12], "little")
    data[12:16] = zlib.crc32(data[16 : 16 + length]).to_bytes(4, "little")
    rig.send(bytes(data))
    rig.send(rig.request())
    assert rig.status() is Status.OK
    assert rig.replies.empty()
    assert rig.service.counts["malformed"] == 1


def test_draining_finishes_what_was_taken_and_refuses_the_rest(rig: Rig) -> None:
    rig.gate.clear()
    rig.send(rig.request())
    rig.send(rig.request())
    rig.wait_until_serving()
    rig.service.drain(0.0)
    assert rig.status() is Status.DRAINING  # the one that waited
    rig.send(rig.request())
    assert rig.status() is Status.DRAINING
    rig.gate.set()
    assert rig.status() is Status.OK
    rig.service.drain(PATIENCE_S)
    assert rig.service.load().free_slots == 1


def test_failing_stage_is_refused_and_the_worker_goes_on(rig: Rig) -> None:
    rig.runners[0].fail_at = 1
    rig.send(rig.request())
    assert rig.status() is Status.FAILED
    rig.runners[0].fail_at = None
    rig.send(rig.request())
    assert rig.status() is Status.OK


def test_way_back_that_breaks_does_not_stop_the_worker(rig: Rig) -> None:
    def broken(data: bytes | None, use_s: int) -> None:
        rig.ends.append(data)
        raise OSError("gone")

    topic = InferTopic(None, rig.bundle.short_digest, 0)
    for data in (rig.request(), b"garbage"):
        rig.sent += 1
        rig.service.handle(data, topic, broken, correlation=b"c" * 16)
    rig.send(rig.request())
    assert rig.status() is Status.OK


def test_bundle_unloaded_while_a_request_waited_is_unknown(rig: Rig) -> None:
    rig.gate.clear()
    rig.send(rig.request())
    rig.wait_until_serving()
    rig.send(rig.request())
    rig.bundles.unload(rig.bundle.digest)
    rig.gate.set()
    assert [rig.status(), rig.status()] == [Status.OK, Status.UNKNOWN_BUNDLE]


def test_ping_is_answered_at_once_also_when_busy(rig: Rig) -> None:
    rig.gate.clear()
    rig.send(rig.request())
    rig.wait_until_serving()
    rig.send(frames.ping(b"p" * 16, bundle_digest=rig.bundle.digest, payload_bytes=4000))
    pong = rig.reply()
    assert (pong.header.kind, pong.header.request_id) == (Kind.PONG, b"p" * 16)
    assert pong.size_bytes < 200


def test_replies_sent_to_a_gateway_are_no_requests(rig: Rig) -> None:
    rig.send(frames.pong_to(wire.decode(rig.request()).header))
    assert rig.replies.empty()
    assert rig.service.counts["no_request"] == 1


def test_advert_tells_bundles_and_stage_times(rig: Rig) -> None:
    load = rig.service.load()
    assert (load.queue_depth, load.free_slots) == (0, 1)
    (bundle,) = load.bundles
    assert bundle.digest12 == rig.bundle.short_digest
    assert bundle.stages == (0, 1, 2)
    assert all(service_ms is not None for service_ms in bundle.service_ms)


def test_unloaded_bundle_is_unknown(rig: Rig) -> None:
    rig.bundles.unload(rig.bundle.digest)
    rig.send(rig.request())
    assert rig.status() is Status.UNKNOWN_BUNDLE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=300), position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_bytes_break_the_gateway(rig: Rig, data: bytes, position: int, flip: int) -> None:
    rig.send(data, correlation=b"c" * 16)
    assert rig.status() in (Status.MALFORMED, Status.TOO_LARGE, Status.UNSUPPORTED_VERSION)
    mutated = bytearray(rig.request())
    mutated[position % len(mutated)] ^= flip
    rig.send(bytes(mutated), correlation=b"c" * 16)
    assert rig.status() in Status
