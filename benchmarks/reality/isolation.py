"""What a replay needs to know, measured apart from the scenarios: stages, overheads, exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

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
from benchmarks.reality.subjects import Subject
from edgeexit.decide.answer import Answer, OffloadRecord
from edgeexit.decide.decision import OffloadOption
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

    Shapes: stage_ms and gateway_stage_ms (K,), medians; hand_over_ms and service_ms (n,).
    Units: overhead_ms, capture to answer outside stages and decisions; decision_ms; result_bytes, IP packets
    sent up for every answer beside offloads; envelope_bytes, what the message of a payload carries beside it;
    hand_over_ms, an exchange outside encoding, link and computing; service_ms, the gateway's computing.
    `options` are what can be sent, with the encoding times that the daemon had learnt.
    """

    factor: float | None
    stage_ms: tuple[float, ...]
    options: tuple[OffloadOption, ...]
    overhead_ms: float
    decision_ms: float
    result_bytes: int
    envelope_bytes: int
    hand_over_ms: tuple[float, ...]
    service_ms: tuple[float, ...]
    gateway_stage_ms: tuple[float, ...]


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
    folder: Path,
    say: Say,
) -> Isolated:
    """Measure everything about a subject but its stages. Raises: DeviceError, DataError."""
    settings = settings_of(subject, folder / "state", measured.factor, pace)
    say("the daemon's own overhead")
    # Without playing: the less the stage takes that is subtracted below, the less its noise matters.
    first = replace(unhurried(settings, "first-exit", offload=False), factor=None)
    alone = run_really(house, first, Shape(), folder / "alone", seconds=SECONDS, say=say)
    answers = {each.frame: each for each in alone.counted if isinstance(each, Answer)}
    decision_ms = float(np.median([each for one in answers.values() for each in one.decision_us])) / 1000.0
    left_ms = [
        answers[each.frame].latency_ms
        - sum(each.stage_ms.values())
        - len(answers[each.frame].decision_us) * decision_ms
        for each in alone.noted
        if each.frame in answers
    ]

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
    options = _options(exchanges)
    result_bytes = _sent_bytes(alone) / max(1, len(alone.answers))
    envelope_bytes = _envelope_bytes(exchanges, result_bytes)
    return Isolated(
        factor=measured.factor,
        stage_ms=exchanges.started.stage_ms,
        options=options,
        overhead_ms=max(0.0, float(np.median(left_ms))),
        decision_ms=decision_ms,
        result_bytes=round(result_bytes),
        envelope_bytes=envelope_bytes,
        hand_over_ms=_hand_over(replies, options, mbps, delay_ms, envelope_bytes),
        service_ms=tuple(each.compute_ms for each in replies if each.compute_ms is not None),
        gateway_stage_ms=gateway_stage_times(exchanges.records, exchanges.started.stage_ms),
    )


def _options(exchanges: RealRun) -> tuple[OffloadOption, ...]:
    """All that the daemon could send at the end of a run, with the encoding times it had learnt."""
    for each in reversed(exchanges.noted):
        for asked in each.decisions:
            if asked.stages_done == 0 and asked.options:
                return asked.options + asked.later_options
    raise DataError("nothing could be sent", file="notes.jsonl")


def _encode_ms(options: Sequence[OffloadOption], boundary: int, codec: str) -> float:
    for each in options:
        if (each.boundary, each.codec) == (boundary, codec):
            return each.encode_ms
    raise DataError("no such option", file="notes.jsonl", why=f"boundary {boundary}, {codec}")


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
    replies: Sequence[OffloadRecord],
    options: Sequence[OffloadOption],
    mbps: float,
    delay_ms: float,
    envelope_bytes: int,
) -> tuple[float, ...]:
    """What is left of an exchange when encoding, link, queue and computing are taken away."""
    left: list[float] = []
    for each in replies:
        if each.compute_ms is None or each.queue_ms is None:
            continue
        wire_bytes = (each.uplink_bytes + envelope_bytes) / PAYLOAD_SHARE
        link_ms = wire_bytes * 8e-3 / mbps + 2.0 * delay_ms
        computed_ms = each.compute_ms + each.queue_ms + _encode_ms(options, each.boundary, each.codec)
        left.append(max(0.0, each.elapsed_ms - computed_ms - link_ms))
    return tuple(left)
