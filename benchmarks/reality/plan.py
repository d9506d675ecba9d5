"""What is run: four scenarios on two subjects, their budgets and links, in units of the board's own speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reality.links import PAYLOAD_SHARE, write_mobile, write_steady
from benchmarks.reality.shaping import Shape
from edgeexit.bundle.store import Bundle
from edgeexit.replay.links import DOWNLINK_SCALE, is_uplink
from edgeexit.replay.traces import LinkTrace, read_trace, trace_files

# The budget goes up and down between 0.3 and 3 times the full local time, a step every so often. The steps
# lie between the times at which a quarter, a half, three quarters and all of the stages end, not on them:
# there a millisecond tosses the coin, and no replay can foresee how it falls.
BUDGET_FACTORS = (3.0, 1.35, 0.62, 0.42, 0.88, 1.6, 0.42, 1.22, 2.5, 0.66)
BUDGET_STEP_MS = 2000.0
# Frames stand alone: what is compared are decisions, not backlogs. A busy board needs more room.
PERIOD_FACTOR = 1.25
BUSY_PERIOD_FACTOR = 3.0
# What the smallest payload takes on the link, of the full local time: sending competes with computing.
PAYLOAD_FACTOR = 0.2
# What the smallest payload must be worth, in quality: a tenth of a point. Were bytes free, one chance in five
# hundred would be worth sending for, and how a replay rates such a chance would decide over bytes alone.
PAYLOAD_PRICE = 0.001
# Busy stretches of the contention scenario, and the core's share that is left to the device in them.
BUSY = ((0.12, 0.30), (0.42, 0.55), (0.70, 0.92))
BUSY_SHARE = 0.5
# The outage, from and to, as fractions of the run.
CUT = (0.35, 0.45)
# Answers are a few kilobytes at most: the downlink of every such network is faster than its uplink.
DOWN_MBPS = 20.0
# One way: Wi-Fi at the edge of a house, and a mobile network with its server near.
NEAR_MS, MOBILE_MS = 2.0, 8.0
MOBILE_JITTER_MS = 3.0
# Traces of a folder that are run; each takes as long as a scenario.
TRACES = 3
PLAYED, COMPUTING = "played", "computing"
NAMES = {PLAYED: ("steady", "mobile", "outage"), COMPUTING: ("contention",)}


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

    full_ms: float
    period_ms: float

    @property
    def budgets(self) -> tuple[tuple[float, float], ...]:
        """Steps of (start_ms, latency_ms), repeating after `budget_period_ms`."""
        return tuple(
            (index * BUDGET_STEP_MS, factor * self.full_ms) for index, factor in enumerate(BUDGET_FACTORS)
        )

    @property
    def budget_period_ms(self) -> float:
        """After which the budgets begin anew."""
        return BUDGET_STEP_MS * len(BUDGET_FACTORS)


def pace_of(subject: str, full_ms: float) -> Pace:
    """Frames and budgets for a board of this speed."""
    factor = PERIOD_FACTOR if subject == PLAYED else BUSY_PERIOD_FACTOR
    return Pace(full_ms, max(20.0, factor * full_ms))


def smallest_payload(bundle: Bundle) -> int:
    """Bytes of the smallest payload that may be sent."""
    return min(codec.payload_bytes for boundary in bundle.manifest.boundaries for codec in boundary.codecs)


def rate_mbps(bundle: Bundle, full_ms: float) -> float:
    """The rate at which the smallest payload takes its share of the full local time, headers included."""
    return smallest_payload(bundle) / PAYLOAD_SHARE * 8.0 / 1000.0 / (PAYLOAD_FACTOR * full_ms)


def played_plans(folder: Path, *, mbps: float, seconds: float, seed: int) -> list[Plan]:
    """The scenarios of the played board; their link traces are written into `folder`."""
    steady, mobile = folder / "steady.trace", folder / "mobile.trace"
    write_steady(steady, mbps=mbps)
    write_mobile(mobile, median_mbps=mbps, seconds=seconds + 30.0, seed=seed)
    fixed = Shape(up_trace=str(steady), down_mbps=DOWN_MBPS, delay_ms=MOBILE_MS)
    return [
        Plan("steady", fixed, seconds, f"{mbps:.2f} Mbit/s up, {MOBILE_MS:g} ms one way"),
        Plan(
            "mobile",
            mobile_shape(mobile, seed),
            seconds,
            f"LTE-like around {mbps:.2f} Mbit/s up, {MOBILE_MS:g} ms one way and more",
        ),
        Plan("outage", fixed, seconds, f"as steady, nothing passes for {seconds / 10:.1f} s", cut=CUT),
    ]


def computing_plans(folder: Path, *, mbps: float, seconds: float) -> list[Plan]:
    """The scenarios of the board that computes in earnest."""
    near = folder / "near.trace"
    write_steady(near, mbps=mbps)
    shape = Shape(up_trace=str(near), down_mbps=DOWN_MBPS, delay_ms=NEAR_MS)
    return [
        Plan("contention", shape, seconds, f"{mbps:.1f} Mbit/s up, {NEAR_MS:g} ms one way", busy=BUSY),
    ]


def mobile_shape(trace: Path, seed: int) -> Shape:
    """A mobile link over a trace."""
    return Shape(
        up_trace=str(trace),
        down_mbps=DOWN_MBPS,
        delay_ms=MOBILE_MS,
        jitter_ms=MOBILE_JITTER_MS,
        seed=seed,
    )


def trace_plans(folder: Path, out: Path, *, mbps: float, seconds: float, seed: int) -> list[Plan]:
    """Scenarios over traces of a folder, each brought to the rate at which there is something to decide.

    Raises: TraceError.
    """
    plans: list[Plan] = []
    for path in _spread(trace_files(folder)):
        trace = read_trace(path, scale=1.0 if is_uplink(path) else DOWNLINK_SCALE)
        scale = mbps * 1e6 / trace.mean_bps
        scaled = out / f"{path.stem}.trace"
        _write_scaled(trace, scaled, scale=scale, seconds=seconds + 30.0)
        about = f"{path.parent.name}/{path.name}, its rates times {scale * trace.scale:.3g}"
        plans.append(Plan(f"trace {path.stem}", mobile_shape(scaled, seed), seconds, about))
    return plans


def _spread(paths: Sequence[Path]) -> list[Path]:
    count = min(TRACES, len(paths))
    return [paths[(2 * index + 1) * len(paths) // (2 * count)] for index in range(count)]


def _write_scaled(trace: LinkTrace, path: Path, *, scale: float, seconds: float) -> None:
    """The beginning of a trace at another rate, in steps of 0.1 s, as the shaper reads it."""
    lines = ["0 1.0"]
    for step in range(1, int(seconds * 10.0) + 1):
        until_ms = step * 100.0
        carried = trace.carried_bytes(until_ms) - trace.carried_bytes(until_ms - 100.0)
        lines.append(f"{step / 10.0:g} {carried * scale * 8e-3 / 100.0:.5f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
