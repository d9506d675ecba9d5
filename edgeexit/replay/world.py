"""A scenario is data; drawn with a seed and a recording it becomes the world of one run.

All chance lies in the world and none in the policies: every policy meets the same stage times, the
same round trips and the same samples, so that differences between policies are paired.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np

from edgeexit.decide.decision import Evidence, OffloadOption
from edgeexit.decide.guard import LEAST_MS, due_after_ms
from edgeexit.decide.spending import Spending
from edgeexit.errors import ConfigError
from edgeexit.replay.compute import ComputeRule, ComputeTrace, Unloaded
from edgeexit.replay.deadlines import DeadlineRule, DeadlineSchedule
from edgeexit.replay.delays import LinkDelay
from edgeexit.replay.outages import Gaps, Outage, OutageKind
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording
from edgeexit.replay.traces import LinkTrace, Uplink

# What was handed to the operating system stays on its way this long, whoever still waits for it.
IN_FLIGHT_CAP_MS = 60_000.0
NowAndLater = tuple[tuple[OffloadOption, ...], tuple[OffloadOption, ...]]
NO_OPTIONS: NowAndLater = ((), ())
# Attempts a frame that have round trips of their own.
ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class ServerModel:
    """How a gateway's service time spreads around its median.

    Units: sigma, of the logarithm; slow_factor on a share of slow_probability of the requests.
    """

    sigma: float = 0.2
    slow_probability: float = 0.02
    slow_factor: float = 5.0


@dataclass(frozen=True, slots=True)
class EnergyTerms:
    """A long-run budget of energy, and what it is spent on.

    Units: budget_mw; board_mw, the power at which stages are counted, None where no sensor tells it;
    sending_mj_per_byte, None where not known.
    """

    budget_mw: float
    board_mw: float | None = None
    sending_mj_per_byte: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the grid: a device, its link, its gateways and what is asked of it.

    Units: period_ms, between frames; byte_price, quality that one uplink byte must buy; bytes_per_s, a
    long-run budget that the device keeps by a price of its own, None without one; so is `energy`.
    """

    name: str
    profile: CostProfile
    frames: int
    period_ms: float
    deadlines: DeadlineRule
    uplink: LinkTrace
    delay: LinkDelay
    compute: ComputeRule = field(default_factory=Unloaded)
    server: ServerModel = field(default_factory=ServerModel)
    outages: tuple[Outage, ...] = ()
    byte_price: float = 0.0
    bytes_per_s: float | None = None
    energy: EnergyTerms | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CostDraws:
    """What every stage, round trip and service of a run will take.

    Shapes: work_ms (F, K), on the unloaded board; rtt_idle_ms and rtt_busy_ms (F × ATTEMPTS,), an
    entry an attempt; service_factor (F,); waking_ms (F,), how late the deadline timer wakes for a frame,
    None for a timer that is never late.
    """

    work_ms: list[list[float]]
    rtt_idle_ms: list[float]
    rtt_busy_ms: list[float]
    service_factor: list[float]
    waking_ms: list[float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What chance brings to a run.

    Shapes: samples and captured_ms (F,). Units: offset_ms, where in the link's trace time 0 lies.
    """

    samples: list[int]
    captured_ms: list[float]
    deadlines: DeadlineSchedule
    compute: ComputeTrace
    offset_ms: float
    costs: CostDraws


def draw(
    scenario: Scenario, recording: Recording, seed: int, *, device: int = 0, synchronised: bool = False
) -> Draws:
    """Chance for one device of a scenario; `synchronised` devices capture at the same moments."""
    profile = scenario.profile
    frames, period_ms = scenario.frames, scenario.period_ms
    # The name takes part, so that scenarios do not share their luck; so does the device.
    random = np.random.default_rng([seed, crc32(scenario.name.encode()), device])
    phase_ms = float(random.uniform(0.0, period_ms))
    if device == 0 or synchronised:
        phase_ms = 0.0
    deadlines = scenario.deadlines.draw(random, frames=frames + 1, period_ms=period_ms)
    compute = scenario.compute.draw(random, frames=frames, period_ms=period_ms)
    offset_ms = float(random.uniform(0.0, scenario.uplink.period_ms))
    passes = -(-frames // recording.sample_count)
    order = np.concatenate([random.permutation(recording.sample_count) for _ in range(passes)])
    return Draws(
        samples=order[:frames].tolist(),
        captured_ms=[phase_ms + frame * period_ms for frame in range(frames)],
        deadlines=deadlines,
        compute=compute,
        offset_ms=offset_ms,
        costs=draw_costs(random, frames, profile, scenario.delay, scenario.server),
    )


def draw_costs(
    random: np.random.Generator, frames: int, profile: CostProfile, delay: LinkDelay, server: ServerModel
) -> CostDraws:
    """What every stage, round trip and service of a run will take."""
    noise = np.exp(profile.noise * random.standard_normal((frames, profile.stage_count)))
    factor = np.exp(server.sigma * random.standard_normal(frames))
    factor[random.random(frames) < server.slow_probability] *= server.slow_factor
    return CostDraws(
        work_ms=(noise * np.asarray(profile.stage_ms)).tolist(),
        rtt_idle_ms=delay.idle.sample(random, frames * ATTEMPTS).tolist(),
        rtt_busy_ms=delay.busy.sample(random, frames * ATTEMPTS).tolist(),
        service_factor=factor.tolist(),
    )


class World:
    """Everything that happens to one device in one run, settled beforehand."""

    def __init__(self, scenario: Scenario, recording: Recording, seed: int, draws: Draws) -> None:
        profile = scenario.profile
        if recording.stage_count != profile.stage_count:
            raise ConfigError(
                f"scenario {scenario.name!r} is refused",
                key="profile",
                why=f"{profile.stage_count} stages, the recording has {recording.stage_count}",
            )
        if profile.options and max(profile.option_columns) >= recording.option_quality.shape[1]:
            raise ConfigError(
                f"scenario {scenario.name!r} is refused",
                key="profile",
                why="an option has no column in the recording",
            )
        self.scenario = scenario
        self.recording = recording
        self.seed = seed
        self.samples = draws.samples
        self.captured_ms = draws.captured_ms
        self.deadlines = draws.deadlines
        self.compute = draws.compute
        self.offset_ms = draws.offset_ms
        self.work_ms = draws.costs.work_ms
        self.rtt_idle_ms = draws.costs.rtt_idle_ms
        self.rtt_busy_ms = draws.costs.rtt_busy_ms
        self.service_factor = draws.costs.service_factor
        self.waking_ms = draws.costs.waking_ms
        expiries = [self.deadlines.expiry(at_ms) for at_ms in self.captured_ms]
        self.expiry_ms = [expiry.at_ms for expiry in expiries]
        self.cut = [expiry.cut for expiry in expiries]
        self.last_exit = profile.stage_count - 1
        self.remote_ms = [profile.remote_ms(boundary) for boundary in range(profile.stage_count)]
        self.quality: list[list[float]] = recording.quality.tolist()
        self.option_quality: list[list[float]] = recording.option_quality[
            :, list(profile.option_columns)
        ].tolist()
        self.prior_quality = recording.prior_quality
        self.link_gaps = Gaps(scenario.outages, OutageKind.LINK)
        self.gateway_gaps = Gaps(scenario.outages, OutageKind.GATEWAY)
        self.option_index = {option: index for index, option in enumerate(profile.options)}
        self.options_after = [_options_after(profile, done) for done in range(profile.stage_count + 1)]
        self._tables = recording.tables
        self._evidence: dict[int, list[Evidence]] = {}

    @property
    def frames(self) -> int:
        """F."""
        return len(self.captured_ms)

    def beginning(self, frames: int) -> World:
        """The same world, ended after so many frames: for trying many policies cheaply."""
        shorter = copy(self)
        shorter.captured_ms = self.captured_ms[:frames]
        shorter.samples = self.samples[:frames]
        shorter.expiry_ms = self.expiry_ms[:frames]
        shorter.cut = self.cut[:frames]
        return shorter

    def with_free_decisions(self) -> World:
        """The same world on a board whose decisions take no time, as those of oracles take none."""
        freed = copy(self)
        freed.scenario = replace(self.scenario, profile=replace(self.scenario.profile, decision_ms=0.0))
        return freed

    def evidence(self, sample: int) -> list[Evidence]:
        """What every exit says about a sample."""
        known = self._evidence.get(sample)
        if known is None:
            known = self._evidence[sample] = self.recording.evidence(sample, self._tables)
        return known

    def new_uplink(self) -> Uplink:
        """The device's link at time 0, with nothing in flight."""
        return Uplink(
            self.scenario.uplink, offset_ms=self.offset_ms, gaps=self.link_gaps, time_out_ms=IN_FLIGHT_CAP_MS
        )

    def guard_ms(self, frame: int) -> float:
        """The guard of a punctual timer before a frame's last moment, by the budget in force then."""
        budget_ms = self.deadlines.latency_ms(self.expiry_ms[frame])
        return budget_ms - due_after_ms(budget_ms, LEAST_MS)

    def remaining_ms(self, captured_ms: float, now_ms: float, guard_ms: float = LEAST_MS) -> float:
        """Time left until the answer must be emitted, by the budget in force, less the guard."""
        return captured_ms + due_after_ms(self.deadlines.latency_ms(now_ms), guard_ms) - now_ms


def spending_of(scenario: Scenario) -> Spending:
    """What a device of this scenario counts and prices. Raises: ConfigError for a budget that is none."""
    energy = scenario.energy
    spending = Spending(
        byte_price=scenario.byte_price,
        bytes_per_s=scenario.bytes_per_s,
        energy_mj_per_s=None if energy is None else energy.budget_mw,
        sending_mj_per_byte=None if energy is None else energy.sending_mj_per_byte,
    )
    if energy is not None and energy.board_mw is not None:
        spending.power(energy.board_mw / 1000.0)
    return spending


def world_of(
    scenario: Scenario, recording: Recording, seed: int, *, device: int = 0, synchronised: bool = False
) -> World:
    """A scenario drawn with a seed. Raises: ConfigError when recording and profile differ."""
    draws = draw(scenario, recording, seed, device=device, synchronised=synchronised)
    return World(scenario, recording, seed, draws)


def _options_after(profile: CostProfile, stages_done: int) -> NowAndLater:
    """What could be sent: now the input and the boundary of the last stage, and after further stages."""
    if stages_done >= profile.stage_count:
        return NO_OPTIONS
    now = tuple(option for option in profile.options if option.boundary in (0, stages_done))
    later = tuple(option for option in profile.options if option.boundary > stages_done)
    return now, later
