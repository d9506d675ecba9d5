"""What a replay needs to know, measured apart from the scenarios: stages, overheads, exchanges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.reality.house import House
from benchmarks.reality.measuring import Measured, Request
from benchmarks.reality.plan import (
    DELAYS_MS,
    DOWN_MBPS,
    PAYLOAD_SHARE,
    Pace,
    rate_mbps,
    settings_of,
    unhurried,
)
from benchmarks.reality.real_run import RealRun, Say, run_really
from benchmarks.reality.shaping import Shape
from benchmarks.reality.subjects import Kind, Subject
from edgeexit.decide.answer import Answer, OffloadRecord
from edgeexit.device.parts import SELECTION_FILE
from edgeexit.errors import DataError
from edgeexit.replay.record import labelled_images, record
from edgeexit.replay.recorded_run import gateway_stage_times
from edgeexit.replay.recording import Recording
from edgeexit.runner.selection import monotonic_ms, open_verified

# Frames whose stages are timed: medians of so many move by one or two per cent.
SAMPLES = 60
# How long the daemon runs for each of its figures; some forty frames each.
SECONDS = 6.0
# Topic, reply topic, correlation and properties take some two hundred bytes.
ENVELOPE_CAP_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Isolated:
    """One subject on this machine, measured apart from every scenario.

    Shapes: stage_ms and gateway_stage_ms (K,), medians; samples_ms (N, K), busy_samples_ms (N, K) on the busy
    board, None where the subject is never there; daemon_factors (K,); hand_over_ms and service_ms (n,).
    Units: daemon_factors, what the daemon's own stages take over those in samples_ms; overhead_ms, capture to
    answer outside stages and decisions; decision_ms; result_bytes, IP packets sent up for every answer beside
    offloads; envelope_bytes, what the message of a payload carries beside it; hand_over_ms, an exchange
    outside encoding, link and computing; service_ms, the gateway's computing.
    """

    factor: float | None
    stage_ms: tuple[float, ...]
    samples_ms: tuple[tuple[float, ...], ...]
    daemon_factors: tuple[float, ...]
    busy_samples_ms: tuple[tuple[float, ...], ...] | None
    overhead_ms: float
    decision_ms: float
    result_bytes: int
    envelope_bytes: int
    hand_over_ms: tuple[float, ...]
    service_ms: tuple[float, ...]
    gateway_stage_ms: tuple[float, ...]

    @property
    def stage_draws(self) -> NDArray[np.float64]:
        """Stage times of frames as the daemon runs them. Shapes: (N, K)."""
        return np.multiply(self.samples_ms, self.daemon_factors, dtype=np.float64)

    @property
    def busy_slowdown(self) -> float:
        """Whole frames on the busy board over free ones; 1 where it was never busy."""
        if self.busy_samples_ms is None:
            return 1.0
        return float(np.mean(np.sum(self.busy_samples_ms, axis=1)) / np.mean(np.sum(self.samples_ms, axis=1)))

    @property
    def busy_draws(self) -> NDArray[np.float64]:
        """Stage times on the busy board, less how much slower whole frames are there. Shapes: (N, K)."""
        if self.busy_samples_ms is None:
            return self.stage_draws
        scaled = [each / self.busy_slowdown for each in self.daemon_factors]
        return np.multiply(self.busy_samples_ms, scaled, dtype=np.float64)


def record_subject(subject: Subject, state: Path) -> Recording:
    """The subject's answers, by the variants that the device chose. Raises: RunnerError, DataError."""
    runner, _ = open_verified(subject.bundle, threads=1, cache=state / SELECTION_FILE)
    images = labelled_images(subject.images, subject.truth)
    recording = record(subject.bundle, images, runner, data=subject.about, clock=monotonic_ms)
    runner.close()
    return recording


def measure_stages(house: House, subject: Subject, state: Path, target_ms: float | None) -> Measured:
    """Stage times where the device runs, and by them the factor at which a board is played."""
    names = sorted(subject.truth)[:SAMPLES]
    images = tuple(str(subject.images / name) for name in names)
    return house.measure(
        Request(bundle=str(subject.bundle.path), state=str(state), images=images, target_ms=target_ms)
    )


def isolate(
    house: House,
    subject: Subject,
    pace: Pace,
    measured: Measured,
    recording: Recording,
    folder: Path,
    say: Say,
) -> Isolated:
    """Measure everything about a subject. Raises: DeviceError, DataError."""
    state = folder / "state"
    settings = settings_of(subject, state, measured.factor, pace)
    say("the daemon's own overhead")
    # Without playing: the less the stage takes that is subtracted below, the less its noise matters.
    plain = measured if measured.factor is None else measure_stages(house, subject, state, None)
    first = replace(unhurried(settings, "first-exit", offload=False), factor=None)
    alone = run_really(house, first, Shape(), folder / "alone", seconds=SECONDS, say=say)
    answers = _answers(alone)
    decision_ms = float(np.median([each for answer in answers for each in answer.decision_us])) / 1000.0
    first_ms = float(np.median([sample[0] for sample in plain.samples_ms]))
    overhead_ms = max(0.0, _latency_ms(answers) - first_ms - _decisions(answers) * decision_ms)

    say("the daemon's own stages")
    until_ms: list[float] = []
    for policy in ("first-exit", "always-local"):
        answers = _answers(
            run_really(
                house,
                unhurried(settings, policy, offload=False),
                Shape(),
                folder / policy,
                seconds=SECONDS,
                say=say,
            )
        )
        until_ms.append(_latency_ms(answers) - overhead_ms - _decisions(answers) * decision_ms)
    first_ms, *others_ms = np.median(measured.samples_ms, axis=0).tolist()
    later = (until_ms[1] - until_ms[0]) / sum(others_ms)
    busy_samples_ms = None
    if subject.kind is Kind.COMPUTING:
        say("stage times on the busy board")
        with house.busy():
            busy_samples_ms = measure_stages(house, subject, state, None).samples_ms

    mbps, delay_ms = rate_mbps(subject.bundle, pace), DELAYS_MS[subject.kind]
    say(f"exchanges at {mbps:.1f} Mbit/s")
    exchanges = run_really(
        house,
        unhurried(settings, "always-offload", offload=True),
        Shape(up_mbps=mbps, down_mbps=DOWN_MBPS, delay_ms=delay_ms),
        folder / "exchanges",
        seconds=SECONDS,
        say=say,
    )
    replies = [
        each for each in exchanges.counted if isinstance(each, OffloadRecord) and each.compute_ms is not None
    ]
    if not replies:
        raise DataError("no exchange came back", file=str(folder / "exchanges"))
    result_bytes = _sent_bytes(alone) / max(1, len(alone.answers))
    envelope_bytes = _envelope_bytes(exchanges, result_bytes)
    return Isolated(
        factor=measured.factor,
        stage_ms=exchanges.started.stage_ms,
        samples_ms=measured.samples_ms,
        daemon_factors=(until_ms[0] / first_ms, *(later for _ in others_ms)),
        busy_samples_ms=busy_samples_ms,
        overhead_ms=overhead_ms,
        decision_ms=decision_ms,
        result_bytes=round(result_bytes),
        envelope_bytes=envelope_bytes,
        hand_over_ms=_hand_over(replies, recording, mbps, delay_ms, envelope_bytes),
        service_ms=tuple(each.compute_ms for each in replies if each.compute_ms is not None),
        gateway_stage_ms=gateway_stage_times(exchanges.records, exchanges.started.stage_ms),
    )


def _answers(run: RealRun) -> list[Answer]:
    return [each for each in run.counted if isinstance(each, Answer)]


def _latency_ms(answers: list[Answer]) -> float:
    return float(np.median([answer.latency_ms for answer in answers]))


def _decisions(answers: list[Answer]) -> float:
    return float(np.mean([len(answer.decision_us) for answer in answers]))


def _sent_bytes(run: RealRun) -> int:
    return run.link_after.up.bytes - run.link_before.up.bytes


def _envelope_bytes(exchanges: RealRun, result_bytes: float) -> int:
    """What a message carries beside its payload: topics, properties, headers of packets not filled."""
    offloads = exchanges.offloads
    payload_bytes = float(np.mean([each.uplink_bytes for each in offloads]))
    wire_bytes = _sent_bytes(exchanges) / max(1, len(offloads)) - result_bytes
    # Segments sent twice would be counted here; no message of ours carries more than this.
    return min(ENVELOPE_CAP_BYTES, max(0, round(wire_bytes * PAYLOAD_SHARE - payload_bytes)))


def _hand_over(
    replies: list[OffloadRecord], recording: Recording, mbps: float, delay_ms: float, envelope_bytes: int
) -> tuple[float, ...]:
    """What is left of an exchange when encoding, link, queue and computing are taken away."""
    encode_ms = {(each.boundary, each.codec): each.encode_ms for each in recording.note.options}
    left: list[float] = []
    for each in replies:
        if each.compute_ms is None or each.queue_ms is None:
            continue
        wire_bytes = (each.uplink_bytes + envelope_bytes) / PAYLOAD_SHARE
        link_ms = wire_bytes * 8e-3 / mbps + 2.0 * delay_ms
        computed_ms = each.compute_ms + each.queue_ms + encode_ms[each.boundary, each.codec]
        left.append(max(0.0, each.elapsed_ms - computed_ms - link_ms))
    return tuple(left)
