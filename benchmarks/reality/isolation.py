"""What a replay needs to know, measured apart from the scenarios: stages, overheads, exchanges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.reality.house import House
from benchmarks.reality.links import PAYLOAD_SHARE
from benchmarks.reality.measuring import Measured, Request
from benchmarks.reality.plan import BUSY_SHARE, DOWN_MBPS, pace_of, rate_mbps
from benchmarks.reality.real_run import DeviceSettings, RealRun, Say, run_really, settings_of, unhurried
from benchmarks.reality.shaping import Shape
from benchmarks.reality.subjects import MOST_FACTOR, Subject
from edgeexit.decide.answer import Answer, OffloadRecord
from edgeexit.device.parts import SELECTION_FILE
from edgeexit.errors import DataError
from edgeexit.replay.record import labelled_images, record
from edgeexit.replay.recorded_run import gateway_stage_times
from edgeexit.replay.recording import Recording
from edgeexit.runner.selection import monotonic_ms, open_verified

# Frames whose stages are timed: medians of so many move by one or two per cent.
SAMPLES = 60
# How long the daemon runs for its overheads, and for the exchanges; some sixty frames each.
SECONDS = 6.0
# One way, while exchanges are measured: as on the links of the scenarios, so that TCP behaves as there.
EXCHANGE_DELAY_MS = 5.0
# Topic, reply topic, correlation and properties take some two hundred bytes.
ENVELOPE_CAP_BYTES = 1000
# Frames of whole length on a share of a core come this much further apart than they take without a limit.
WHOLE_PERIOD_FACTOR = 4.0


@dataclass(frozen=True, slots=True)
class Isolated:
    """One subject on this machine, measured apart from every scenario.

    Shapes: stage_ms and gateway_stage_ms (K,), medians; samples_ms (N, K), busy_samples_ms (N, K) under the
    quota of the contention scenario, None where the subject is not used there; hand_over_ms and
    service_ms (n,).
    Units: busy_slowdown, of whole frames of the daemon under that quota, 1 without; overhead_ms, capture to
    answer outside stages and decisions; decision_ms; result_bytes, IP packets sent up for every answer
    beside offloads; envelope_bytes, what the message of a payload carries beside it; hand_over_ms, an
    exchange outside encoding, link and computing; service_ms, the gateway's computing.
    """

    factor: float | None
    stage_ms: tuple[float, ...]
    samples_ms: tuple[tuple[float, ...], ...]
    busy_samples_ms: tuple[tuple[float, ...], ...] | None
    busy_slowdown: float
    overhead_ms: float
    decision_ms: float
    result_bytes: int
    envelope_bytes: int
    hand_over_ms: tuple[float, ...]
    service_ms: tuple[float, ...]
    gateway_stage_ms: tuple[float, ...]

    @property
    def full_ms(self) -> float:
        """All stages, as they were measured. Units: the median of whole frames."""
        return float(np.median(np.sum(self.samples_ms, axis=1)))

    @property
    def busy_spread(self) -> NDArray[np.float64]:
        """Stage times under the quota, relative to how much slower whole frames are. Shapes: (N, K)."""
        busy = np.asarray(self.samples_ms if self.busy_samples_ms is None else self.busy_samples_ms)
        return busy * float(np.mean(np.sum(self.samples_ms, axis=1)) / np.mean(busy.sum(axis=1)))


def record_subject(subject: Subject, state: Path) -> Recording:
    """The subject's answers, by the variants that the device chose. Raises: RunnerError, DataError."""
    runner, _ = open_verified(subject.bundle, threads=1, cache=state / SELECTION_FILE)
    images = labelled_images(subject.images, subject.truth)
    recording = record(subject.bundle, images, runner, data=subject.about, clock=monotonic_ms)
    runner.close()
    return recording


def measure_stages(house: House, subject: Subject, state: Path) -> Measured:
    """Stage times on the idle board, and by them the factor at which it is played."""
    return house.measure(_request(subject, state, subject.target_ms))


def isolate(
    house: House,
    subject: Subject,
    kind: str,
    measured: Measured,
    recording: Recording,
    state: Path,
    folder: Path,
    *,
    busy: bool,
    say: Say,
) -> Isolated:
    """Measure everything about a subject. Raises: DeviceError, DataError."""
    pace = pace_of(kind, float(np.median(np.sum(measured.samples_ms, axis=1))))
    settings = settings_of(subject, state, measured.factor, pace)
    say("the daemon's own overhead")
    # Without playing: the less the stage takes that is subtracted below, the less its noise matters.
    plain = measured if measured.factor is None else house.measure(_request(subject, state, None))
    alone = run_really(
        house,
        replace(unhurried(settings, "first-exit", offload=False), factor=None),
        Shape(),
        folder / "alone",
        seconds=SECONDS,
        say=say,
    )
    busy_samples_ms, busy_slowdown = None, 1.0
    if busy:
        say(f"whole frames, free and with {BUSY_SHARE:g} of a core")
        with house.device_group.limited(BUSY_SHARE):
            busy_samples_ms = house.measure(_request(subject, state, None)).samples_ms
        whole = replace(
            unhurried(settings, "always-local", offload=False), period_ms=WHOLE_PERIOD_FACTOR * pace.full_ms
        )
        free_ms, busy_ms = (
            np.mean([answer.latency_ms for answer in _answers(house, whole, folder, share, say)])
            for share in (None, BUSY_SHARE)
        )
        busy_slowdown = float(busy_ms / free_ms)
    mbps = rate_mbps(subject.bundle, pace.full_ms)
    say(f"exchanges at {mbps:.2f} Mbit/s")
    exchanges = run_really(
        house,
        unhurried(settings, "always-offload", offload=True),
        Shape(up_mbps=mbps, down_mbps=DOWN_MBPS, delay_ms=EXCHANGE_DELAY_MS),
        folder / "exchanges",
        seconds=SECONDS,
        say=say,
    )
    alone_answers = [each for each in alone.counted if isinstance(each, Answer)]
    decision_ms = float(np.median([each for answer in alone_answers for each in answer.decision_us])) / 1000.0
    decisions = float(np.mean([len(answer.decision_us) for answer in alone_answers]))
    latency_ms = float(np.median([answer.latency_ms for answer in alone_answers]))
    first_ms = float(np.median([sample[0] for sample in plain.samples_ms]))
    replies = [
        each for each in exchanges.counted if isinstance(each, OffloadRecord) and each.compute_ms is not None
    ]
    if not replies:
        raise DataError("no exchange came back", file=str(folder / "exchanges"))
    result_bytes = _result_bytes(alone)
    envelope_bytes = _envelope_bytes(exchanges, result_bytes)
    service_ms = tuple(each.compute_ms for each in replies if each.compute_ms is not None)
    return Isolated(
        factor=measured.factor,
        stage_ms=exchanges.started.stage_ms,
        samples_ms=measured.samples_ms,
        busy_samples_ms=busy_samples_ms,
        busy_slowdown=busy_slowdown,
        overhead_ms=max(0.0, latency_ms - first_ms - decisions * decision_ms),
        decision_ms=decision_ms,
        result_bytes=result_bytes,
        envelope_bytes=envelope_bytes,
        hand_over_ms=_hand_over(replies, recording, mbps, envelope_bytes),
        service_ms=service_ms,
        gateway_stage_ms=gateway_stage_times(exchanges.records, exchanges.started.stage_ms),
    )


def _request(subject: Subject, state: Path, target_ms: float | None) -> Request:
    names = sorted(subject.truth)[:SAMPLES]
    return Request(
        bundle=str(subject.bundle.path),
        state=str(state),
        images=tuple(str(subject.images / name) for name in names),
        target_ms=target_ms,
        most_factor=MOST_FACTOR,
    )


def _answers(
    house: House, settings: DeviceSettings, folder: Path, share: float | None, say: Say
) -> list[Answer]:
    """What the daemon answers with a share of a core."""
    run = run_really(house, settings, Shape(), folder / "whole", seconds=SECONDS, say=say, share=share)
    return [each for each in run.counted if isinstance(each, Answer)]


def _result_bytes(alone: RealRun) -> int:
    """Bytes sent up for an answer while nothing was offloaded: results, telemetry, acknowledgements."""
    sent_bytes = alone.link_after.up.bytes - alone.link_before.up.bytes
    return round(sent_bytes / max(1, len(alone.answers)))


def _envelope_bytes(exchanges: RealRun, result_bytes: int) -> int:
    """What a message carries beside its payload: topics, properties, headers of packets not filled."""
    offloads = exchanges.offloads
    sent_bytes = exchanges.link_after.up.bytes - exchanges.link_before.up.bytes
    payload_bytes = float(np.mean([each.uplink_bytes for each in offloads]))
    wire_bytes = sent_bytes / max(1, len(offloads)) - result_bytes
    # Segments sent twice would be counted here; no message of ours carries more than this.
    return min(ENVELOPE_CAP_BYTES, max(0, round(wire_bytes * PAYLOAD_SHARE - payload_bytes)))


def _hand_over(
    replies: list[OffloadRecord], recording: Recording, mbps: float, envelope_bytes: int
) -> tuple[float, ...]:
    """What is left of an exchange when encoding, link, queue and computing are taken away."""
    encode_ms = {(each.boundary, each.codec): each.encode_ms for each in recording.note.options}
    left: list[float] = []
    for each in replies:
        if each.compute_ms is None or each.queue_ms is None:
            continue
        wire_bytes = (each.uplink_bytes + envelope_bytes) / PAYLOAD_SHARE
        link_ms = wire_bytes * 8e-3 / mbps + 2.0 * EXCHANGE_DELAY_MS
        computed_ms = each.compute_ms + each.queue_ms + encode_ms[each.boundary, each.codec]
        left.append(max(0.0, each.elapsed_ms - computed_ms - link_ms))
    return tuple(left)
