"""What a replay needs to know, measured apart from the scenarios: stages, overheads, exchanges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.reality.house import House
from benchmarks.reality.measuring import Measured, Request
from benchmarks.reality.plan import BUSY_SHARE, DOWN_MBPS, pace_of
from benchmarks.reality.real_run import RealRun, Say, run_really, settings_of, unhurried
from benchmarks.reality.shaping import Shape
from benchmarks.reality.subjects import Subject
from edgeexit.decide.answer import OffloadRecord
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
# So fast that a payload takes no time of its own.
EXCHANGE_MBPS = 1000.0


@dataclass(frozen=True, slots=True)
class Isolated:
    """One subject on this machine, measured apart from every scenario.

    Shapes: stage_ms and gateway_stage_ms (K,), medians; samples_ms (N, K), busy_samples_ms (N, K) under the
    quota of the contention scenario, None where the subject is not used there; hand_over_ms and
    service_ms (n,).
    Units: overhead_ms, capture to answer outside stages and decisions; decision_ms; result_bytes, IP packets
    sent up for every answer beside offloads; hand_over_ms, an exchange outside encoding, link
    and computing; service_ms, the gateway's computing.
    """

    factor: float | None
    stage_ms: tuple[float, ...]
    samples_ms: tuple[tuple[float, ...], ...]
    busy_samples_ms: tuple[tuple[float, ...], ...] | None
    overhead_ms: float
    decision_ms: float
    result_bytes: int
    hand_over_ms: tuple[float, ...]
    service_ms: tuple[float, ...]
    gateway_stage_ms: tuple[float, ...]

    @property
    def full_ms(self) -> float:
        """All stages, as they were measured. Units: the median of whole frames."""
        return float(np.median(np.sum(self.samples_ms, axis=1)))

    @property
    def busy_slowdown(self) -> float:
        """How much slower whole frames are under the quota."""
        if self.busy_samples_ms is None:
            return 1.0
        return float(np.mean(np.sum(self.busy_samples_ms, axis=1)) / np.mean(np.sum(self.samples_ms, axis=1)))


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
    busy_samples_ms = None
    if busy:
        house.device_group.limit(BUSY_SHARE)
        try:
            busy_samples_ms = house.measure(_request(subject, state, None)).samples_ms
        finally:
            house.device_group.limit(None)
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
    say("exchanges")
    exchanges = run_really(
        house,
        unhurried(settings, "always-offload", offload=True),
        Shape(up_mbps=EXCHANGE_MBPS, down_mbps=DOWN_MBPS, delay_ms=EXCHANGE_DELAY_MS),
        folder / "exchanges",
        seconds=SECONDS,
        say=say,
    )
    decision_ms = float(np.median([each for answer in alone.answers for each in answer.decision_us])) / 1000.0
    decisions = float(np.mean([len(answer.decision_us) for answer in alone.answers]))
    latency_ms = float(np.median([answer.latency_ms for answer in alone.answers]))
    first_ms = float(np.median([sample[0] for sample in plain.samples_ms]))
    replies = [each for each in exchanges.offloads if each.compute_ms is not None]
    if not replies:
        raise DataError("no exchange came back", file=str(folder / "exchanges"))
    service_ms = tuple(each.compute_ms for each in replies if each.compute_ms is not None)
    return Isolated(
        factor=measured.factor,
        stage_ms=exchanges.started.stage_ms,
        samples_ms=measured.samples_ms,
        busy_samples_ms=busy_samples_ms,
        overhead_ms=max(0.0, latency_ms - first_ms - decisions * decision_ms),
        decision_ms=decision_ms,
        result_bytes=_result_bytes(alone),
        hand_over_ms=_hand_over(replies, recording),
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
    )


def _result_bytes(alone: RealRun) -> int:
    """Bytes sent up for an answer while nothing was offloaded: results, telemetry, acknowledgements."""
    sent_bytes = alone.link_after.up.bytes - alone.link_before.up.bytes
    return round(sent_bytes / max(1, len(alone.answers)))


def _hand_over(replies: list[OffloadRecord], recording: Recording) -> tuple[float, ...]:
    """What is left of an exchange when encoding, link, queue and computing are taken away."""
    encode_ms = {(each.boundary, each.codec): each.encode_ms for each in recording.note.options}
    left: list[float] = []
    for each in replies:
        if each.compute_ms is None or each.queue_ms is None:
            continue
        known_ms = each.compute_ms + each.queue_ms + encode_ms[each.boundary, each.codec]
        left.append(max(0.0, each.elapsed_ms - known_ms - 2.0 * EXCHANGE_DELAY_MS))
    return tuple(left)
