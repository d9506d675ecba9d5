"""What is run: four scenarios on two subjects, in units of the board's own speed; the daemon's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.reality.measuring import BOARD
from benchmarks.reality.shaping import Shape
from benchmarks.reality.subjects import Kind, Subject
from edgeexit.bundle.store import Bundle

# The budget goes up and down between 0.4 and 3 times the full local time, a step every so often. The steps
# lie between the times at which stages end and replies come, not on them: there a millisecond tosses the
# coin, and no replay can foresee how it falls. Half of them leave time for the first stages only, most others
# for a reply too but not for all stages: on the played board from eight tenths to one full local time, on the
# busy one around twice as much.
BUDGET_FACTORS = {
    Kind.PLAYED: (1.6, 0.80, 0.47, 0.92, 0.48, 0.46, 0.82, 0.47, 0.90, 0.48),
    Kind.COMPUTING: (3.0, 1.9, 0.93, 1.95, 0.93, 2.05, 0.4, 0.93, 2.0, 0.93),
}
BUDGET_STEP_MS = 2000.0
# Frames stand alone: what is compared are decisions, not backlogs. A busy board needs more room.
PERIOD_FACTORS = {Kind.PLAYED: 1.5, Kind.COMPUTING: 3.0}
# What the smallest payload takes on the link, of the full local time: sending competes with computing.
PAYLOAD_FACTOR = 0.4
# What the smallest payload must be worth, in quality. Were bytes free, one chance in five hundred would be
# worth sending for. On the played board, four tenths of a point: the dearer they are, the sooner a device
# that once saw the link slow does not send again until a probe tells it better, and chance decides when that
# is: replays of one and the same run then differ by tens of points of offloads. On the board under
# contention, which has a steady link, four times as much: what a payload gains there in case the load comes
# back is worth four to eight thousandths on the free board, three hundredths and more on the busy one; in
# between, small errors of either world decide nothing.
PAYLOAD_PRICES = {Kind.PLAYED: 0.004, Kind.COMPUTING: 0.016}
# Busy stretches of the contention scenario, as fractions of the run.
BUSY = ((0.12, 0.30), (0.42, 0.55), (0.70, 0.92))
# The outage, likewise.
CUT = (0.35, 0.45)
# Answers are a few kilobytes at most: the downlink of every such network is faster than its uplink.
DOWN_MBPS = 20.0
# One way: a mobile network with its server near, and Wi-Fi at the edge of a house.
DELAYS_MS = {Kind.PLAYED: 8.0, Kind.COMPUTING: 2.0}
MOBILE_JITTER_MS = 3.0

# Of a full IP packet 1448 bytes are payload: 20 bytes IP, 20 TCP, 12 time stamps.
PACKET_BYTES = 1500
PAYLOAD_SHARE = 1448 / PACKET_BYTES
# A mobile uplink is wider than the steady one, but uneven. Were its median the same, there would be stretches
# in which a device gives up on the link, and chance would decide when it tries again.
MOBILE_FACTOR = 1.5
# Mobile uplinks wander: one step of half a second says much about the next, little about the tenth.
STEP_S = 0.5
PERSISTENCE = 0.85
SIGMA = 0.2
# Deep short fades, as behind a lorry or at the edge of a cell.
FADE_PROBABILITY = 0.03
FADE_FACTOR = 0.15
# Between a tenth and four times the median the policy has something to decide.
LEAST_FACTOR, MOST_FACTOR = 0.1, 4.0

NAMES = {Kind.PLAYED: ("steady", "mobile", "outage"), Kind.COMPUTING: ("contention",)}


@dataclass(frozen=True, slots=True)
class Plan:
    """One scenario. Units: cut and busy, fractions of the run; seconds; `about`, the link in words."""

    name: str
    shape: Shape
    seconds: float
    about: str
    cut: tuple[float, float] | None = None
    busy: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast frames and budgets come on a board. Units: full_ms, all stages there."""

    kind: Kind
    full_ms: float

    @property
    def period_ms(self) -> float:
        """Between two frames."""
        return max(20.0, PERIOD_FACTORS[self.kind] * self.full_ms)

    @property
    def budgets(self) -> tuple[tuple[float, float], ...]:
        """Steps of (start_ms, latency_ms), repeating after `budget_period_ms`."""
        factors = BUDGET_FACTORS[self.kind]
        return tuple((index * BUDGET_STEP_MS, factor * self.full_ms) for index, factor in enumerate(factors))

    @property
    def budget_period_ms(self) -> float:
        """After which the budgets begin anew."""
        return BUDGET_STEP_MS * len(BUDGET_FACTORS[self.kind])


def smallest_payload(bundle: Bundle) -> int:
    """Bytes of the smallest payload that may be sent."""
    return min(codec.payload_bytes for boundary in bundle.manifest.boundaries for codec in boundary.codecs)


def rate_mbps(bundle: Bundle, pace: Pace) -> float:
    """The rate at which the smallest payload takes its share of the full local time, headers included."""
    wire_bytes = smallest_payload(bundle) / PAYLOAD_SHARE
    return wire_bytes * 8.0 / 1000.0 / (PAYLOAD_FACTOR * pace.full_ms)


def plans(folder: Path, pace: Pace, *, mbps: float, seconds: float, seed: int) -> list[Plan]:
    """The scenarios of a board; their link traces are written into `folder`."""
    delay_ms = DELAYS_MS[pace.kind]
    steady, mobile = folder / f"steady-{pace.kind.value}.trace", folder / "mobile.trace"
    write_steady(steady, mbps=mbps)
    fixed = Shape(up_trace=str(steady), down_mbps=DOWN_MBPS, delay_ms=delay_ms)
    about = f"{mbps:.1f} Mbit/s up, {delay_ms:g} ms one way"
    if pace.kind is Kind.COMPUTING:
        return [Plan("contention", fixed, seconds, about, busy=BUSY)]
    write_mobile(mobile, median_mbps=MOBILE_FACTOR * mbps, seconds=seconds + 30.0, seed=seed)
    moving = Shape(
        up_trace=str(mobile), down_mbps=DOWN_MBPS, delay_ms=delay_ms, jitter_ms=MOBILE_JITTER_MS, seed=seed
    )
    return [
        Plan("steady", fixed, seconds, about),
        Plan(
            "mobile",
            moving,
            seconds,
            f"LTE-like around {MOBILE_FACTOR * mbps:.1f} Mbit/s up, {delay_ms:g} ms and more",
        ),
        Plan("outage", fixed, seconds, f"{about}; nothing passes for {seconds / 10:.1f} s", cut=CUT),
    ]


def write_mobile(path: Path, *, median_mbps: float, seconds: float, seed: int) -> None:
    """Write an LTE-like uplink: a wandering level with deep fades, the same for the same seed."""
    random = np.random.default_rng([seed, 4])
    level, lines = 0.0, ["0 1.0"]
    for step in range(1, int(seconds / STEP_S) + 2):
        level = PERSISTENCE * level + float(random.normal(0.0, SIGMA))
        factor = min(max(float(np.exp(level)), LEAST_FACTOR), MOST_FACTOR)
        if random.random() < FADE_PROBABILITY:
            factor *= FADE_FACTOR
        lines.append(f"{step * STEP_S:g} {median_mbps * factor:.4f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_steady(path: Path, *, mbps: float) -> None:
    """Write a link whose rate never changes."""
    path.write_text(f"0 {mbps:.4f}\n60 {mbps:.4f}\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """How the daemon is set up for one run.

    With `run_on`, whatever the policy, stages run one after the other until the deadline timer answers.
    Units: budgets, steps of (start_ms, latency_ms) that repeat after budget_period_ms; byte_price, quality
    that one byte must buy.
    """

    subject: Subject
    state: Path
    factor: float | None
    period_ms: float
    budgets: Sequence[tuple[float, float]]
    budget_period_ms: float
    byte_price: float
    policy: str = "hedged-gain"
    offload: bool = True
    run_on: bool = False


def settings_of(subject: Subject, state: Path, factor: float | None, pace: Pace) -> DeviceSettings:
    """The daemon as a scenario has it."""
    return DeviceSettings(
        subject,
        state,
        factor,
        pace.period_ms,
        pace.budgets,
        pace.budget_period_ms,
        byte_price=PAYLOAD_PRICES[subject.kind] / smallest_payload(subject.bundle),
    )


def unhurried(settings: DeviceSettings, policy: str, *, offload: bool) -> DeviceSettings:
    """The same daemon with another policy and time enough for everything."""
    longest_ms = 5.0 * max(latency_ms for _, latency_ms in settings.budgets)
    return replace(
        settings, budgets=((0.0, longest_ms),), budget_period_ms=1e6, policy=policy, offload=offload
    )


def write_config(settings: DeviceSettings, path: Path, *, broker_url: str, results: Path) -> None:
    """Write the daemon's configuration."""
    tables: dict[str, object] = {
        "device": "porch",
        "bundle": str(settings.subject.bundle.path),
        "board": BOARD,
        "threads": 1,
        "state": str(settings.state),
        "source": {
            "kind": "directory",
            "path": str(settings.subject.images),
            "frame_rate_hz": 1000.0 / settings.period_ms,
            "loop": True,
        },
        "budget": {
            "kind": "schedule",
            "period_ms": settings.budget_period_ms,
            "steps": [{"start_ms": start, "latency_ms": ms} for start, ms in settings.budgets],
        },
        "broker": {"url": broker_url},
        "offload": {"enabled": settings.offload, "byte_price": settings.byte_price},
        "policy": {"name": settings.policy},
        "results": {"path": str(results)},
    }
    if settings.factor is not None:
        tables["play"] = {"factor": settings.factor}
    path.write_bytes(msgspec.toml.encode(tables))
