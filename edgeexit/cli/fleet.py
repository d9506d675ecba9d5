"""From the words of `edgeexit plan` to a fleet: figures given, measured by a device, or replayed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeexit.cli.grid import GridWords, grid_of
from edgeexit.decide.answer import Answer, Drop, OffloadRecord
from edgeexit.device.records import read_records
from edgeexit.errors import ConfigError, DataError
from edgeexit.replay.contenders import OWN, contenders
from edgeexit.replay.links import DOWNLINK_SCALE
from edgeexit.replay.planner import Fleet, fleet_of
from edgeexit.replay.recording import load_recording
from edgeexit.replay.simulator import simulate

# Frames of one device that are replayed over each trace, to see how many it sends.
REPLAYED_FRAMES = 500
# Service times that are drawn from; more would not make a p99 surer.
SERVICE_TIMES = 10_000


@dataclass(frozen=True, slots=True)
class FleetWords:
    """What was asked for; None and empty are unknown. Units: service_ms, of whole requests."""

    devices: int
    frames_per_s: float | None
    offload_fraction: float | None
    service_ms: tuple[float, ...]
    results: Path | None
    recording: Path | None
    traces: Path | None
    board: str
    costs: str
    synchronised: bool
    seed: int


@dataclass(frozen=True, slots=True)
class _Known:
    frames_per_s: float | None
    offload_fraction: float | None
    service_ms: tuple[float, ...]


def fleet_from(words: FleetWords) -> Fleet:
    """The fleet; what was not given comes from a results file or a replay.

    Raises: ConfigError when something stays unknown; DataError, TraceError.
    """
    known = _Known(words.frames_per_s, words.offload_fraction, words.service_ms)
    if words.results is not None:
        known = _filled(known, _measured(words.results))
    if words.recording is not None:
        known = _filled(known, _replayed(words, known.frames_per_s))
    for key, value, option in (
        ("frames_per_s", known.frames_per_s, "--frames-per-s"),
        ("offload_fraction", known.offload_fraction, "--offload-fraction"),
        ("service_ms", known.service_ms or None, "--service-ms"),
    ):
        if value is None:
            raise ConfigError(
                f"{key} is unknown",
                key=key,
                why="neither an option nor a results file or recording says it",
                fix=f"give {option}, or --results FILE of a device, or --recording FILE with --traces DIR",
            )
    assert known.frames_per_s is not None
    assert known.offload_fraction is not None
    return Fleet(
        devices=words.devices,
        frames_per_s=known.frames_per_s,
        offload_fraction=known.offload_fraction,
        service_ms=known.service_ms,
        synchronised=words.synchronised,
    )


def _filled(known: _Known, further: _Known) -> _Known:
    """What is known, then what else was found."""
    return _Known(
        further.frames_per_s if known.frames_per_s is None else known.frames_per_s,
        further.offload_fraction if known.offload_fraction is None else known.offload_fraction,
        known.service_ms or further.service_ms,
    )


def _measured(path: Path) -> _Known:
    """What a device wrote about its own run."""
    captured_ms: list[float] = []
    service_ms: list[float] = []
    sent = 0
    for record in read_records(path):
        if isinstance(record, Answer | Drop):
            captured_ms.append(record.captured_ms)
        elif isinstance(record, OffloadRecord):
            sent += 1
            if record.compute_ms is not None and record.compute_ms > 0.0:
                service_ms.append(record.compute_ms)
    if len(captured_ms) < 2 or max(captured_ms) <= min(captured_ms):
        raise DataError(
            f"{path} says too little",
            file=str(path),
            why="it has fewer than two frames",
            fix="let the device run for some minutes, or give the figures as options",
        )
    frames = len(captured_ms)
    return _Known(
        1000.0 * (frames - 1) / (max(captured_ms) - min(captured_ms)),
        min(1.0, sent / frames),
        tuple(service_ms[-SERVICE_TIMES:]),
    )


def _replayed(words: FleetWords, frames_per_s: float | None) -> _Known:
    """How one device offloads over each trace, and what its gateway would take."""
    if words.traces is None or words.recording is None:
        raise ConfigError(
            "a replay needs networks",
            key="traces",
            why="how much is offloaded depends on them",
            fix="give --traces DIR",
        )
    if frames_per_s is None:
        raise ConfigError(
            "a replay needs a frame rate",
            key="frames_per_s",
            why="a recording holds answers of single images, and no times of frames",
            fix="give --frames-per-s",
        )
    recording = load_recording(words.recording)
    grid = GridWords(
        traces=words.traces,
        scale=DOWNLINK_SCALE,
        board=words.board,
        costs=words.costs,
        deadlines="wide",
        deadlines_ms=(),
        contention="none",
        outages="none",
        frames=REPLAYED_FRAMES,
        seconds=None,
        byte_price=0.0,
    )
    outcomes = []
    services: list[float] = []
    for row in grid_of(grid, recording):
        scenario = replace(row.scenario, period_ms=1000.0 / frames_per_s)
        outcomes.append(simulate(scenario, recording, contenders()[OWN], words.seed))
        whole_ms = scenario.profile.remote_ms(0)
        random = np.random.default_rng(words.seed)
        services += (whole_ms * np.exp(scenario.server.sigma * random.standard_normal(200))).tolist()
    made = fleet_of(outcomes, devices=words.devices, service_ms=services)
    return _Known(made.frames_per_s, made.offload_fraction, made.service_ms)
