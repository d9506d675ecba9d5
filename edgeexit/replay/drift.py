"""What a watch over early exits makes of a world that changes half-way: how long it takes to notice.

The same policy, watch and audits as on a board. From half of the run on, the early exits of a share of
all samples answer another class than before, as surely as ever; the last exit stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeexit.decide.decision import Policy
from edgeexit.decide.drift import AUDIT_FRACTION, AuditTerms, Breach, DriftWatch
from edgeexit.decide.learner import FrameClosed, Observation
from edgeexit.decide.policies.guarded import Guarded
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.risk import certify, inconsistency
from edgeexit.errors import ConfigError
from edgeexit.replay.controller import controller_of
from edgeexit.replay.outcome import Outcome
from edgeexit.replay.recording import Recording
from edgeexit.replay.simulator import replay
from edgeexit.replay.world import Scenario, World, draw


@dataclass(frozen=True, slots=True)
class DriftTerms:
    """What drifts, and what is promised and watched.

    `share` of the samples answer otherwise at early exits from frame `begins` × all frames on. Units:
    fractions.
    Raises: ConfigError when a fraction is none.
    """

    share: float
    epsilon: float = 0.05
    delta: float = 0.1
    audit_fraction: float = AUDIT_FRACTION
    begins: float = 0.5

    def __post_init__(self) -> None:
        for key, value in (("share", self.share), ("begins", self.begins)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"drift of {key} {value:g}", key=key, why="a fraction lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class DriftFigures:
    """One run. Units: frames by number; differing_…, share of the answers that are not the last exit's.

    `noticed_after` counts frames from the drift to the first breach, None where it was not noticed;
    `false_alarms` are breaches before it. `differing_before` is until the drift, `differing_unnoticed`
    from there to the first breach, `differing_after` from the last breach on.
    """

    scenario: str
    threshold: float
    frames: int
    began_at: int
    noticed_after: int | None
    false_alarms: int
    breaches: int
    audits: int
    disagreements: int
    sent: int
    skipped: int
    uplink_bytes: int
    state: str
    differing_before: float | None
    differing_unnoticed: float | None
    differing_after: float | None


def replay_drift(scenario: Scenario, recording: Recording, terms: DriftTerms, seed: int) -> DriftFigures:
    """Certify on one half of the samples, drawn by lot; replay the other half, which drifts.

    Raises: ConfigError for a regression, or when recording and profile differ.
    """
    if recording.note.task != "classification":
        raise ConfigError("drift cannot be replayed", key="drift", why="the recording has no classes")
    order = np.random.default_rng(seed).permutation(recording.sample_count)
    certifying, replayed = np.array_split(order, 2)
    found = certify(
        recording.scores[certifying],
        inconsistency(recording.answers[certifying]),
        epsilon=terms.epsilon,
        delta=terms.delta,
    )
    half = _taken(recording, replayed)
    world, began_at = _drifting_world(scenario, half, terms, seed)
    watch = DriftWatch(found.thresholds, epsilon=terms.epsilon, delta=terms.delta)
    breaches: list[int] = []
    policy = _Counted(watch, half, breaches)
    made = controller_of(lambda _profile, _recording: policy)(scenario.profile, half)
    controller = replace(made, audits=AuditTerms(terms.audit_fraction))
    outcome = replay(world, controller)
    differing = _differing(outcome, world)
    after = [frame for frame in breaches if frame >= began_at]
    status, audits = watch.status, outcome.audits
    return DriftFigures(
        scenario=scenario.name,
        threshold=found.thresholds[0],
        frames=world.frames,
        began_at=began_at,
        noticed_after=after[0] - began_at if after else None,
        false_alarms=len(breaches) - len(after),
        breaches=len(breaches),
        audits=status.audits,
        disagreements=status.disagreements,
        sent=audits.sent,
        skipped=audits.skipped,
        uplink_bytes=audits.uplink_bytes,
        state=status.state.value,
        differing_before=_mean(differing[:began_at]),
        differing_unnoticed=_mean(differing[began_at : after[0] if after else None]),
        differing_after=_mean(differing[after[-1] + 1 :]) if after else None,
    )


class _Counted(Guarded):
    """A guarded policy that notes at which frame each breach was found."""

    __slots__ = ("_frame",)

    def __init__(self, watch: DriftWatch, recording: Recording, breaches: list[int]) -> None:
        tables = recording.tables
        self._frame = 0

        def make(thresholds: Sequence[float]) -> Policy:
            return HedgedGain(tables=tables, thresholds=thresholds)

        def note(_: Breach) -> None:
            breaches.append(self._frame)

        super().__init__(make, watch, note)

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Know which frame it is."""
        if isinstance(observation, FrameClosed):
            self._frame = observation.frame
        super().learn(observation, now_ms)


def _taken(recording: Recording, samples: NDArray[np.int64]) -> Recording:
    return replace(
        recording,
        sources=tuple(recording.sources[sample] for sample in samples),
        scores=recording.scores[samples],
        answers=recording.answers[samples],
        truth=recording.truth[samples],
        quality=recording.quality[samples],
        option_quality=recording.option_quality[samples],
        outputs=None,
    )


def _drifting_world(
    scenario: Scenario, recording: Recording, terms: DriftTerms, seed: int
) -> tuple[World, int]:
    """The world of the run, and its first frame that shows drifted samples.

    Every sample is there twice, as it was and as it will be.
    """
    count = recording.sample_count
    both = _taken(recording, np.tile(np.arange(count), 2))
    drifting = np.random.default_rng([seed, 1]).random(count) < terms.share
    rows = count + np.flatnonzero(drifting)
    early = both.answers[rows, :-1]
    classes = max(2, int(both.answers.max()) + 1)
    relabelled = (early + 1) % classes
    both.answers[rows, :-1] = relabelled
    both.quality[rows, :-1] = np.equal(relabelled, both.truth[rows, None])
    draws = draw(scenario, recording, seed)
    began_at = int(terms.begins * len(draws.samples))
    samples = [sample + count * (frame >= began_at) for frame, sample in enumerate(draws.samples)]
    return World(scenario, both, seed, replace(draws, samples=samples)), began_at


def _differing(outcome: Outcome, world: World) -> NDArray[np.float64]:
    """By frame: 1 where a local answer was given that is not the last exit's; NaN without an answer."""
    answers = world.recording.answers[outcome.samples]
    exits = outcome.exits
    given = np.take_along_axis(answers, np.maximum(exits, 0)[:, None], axis=1)[:, 0]  # (F, K) -> (F,)
    differs = ((given != answers[:, -1]) & ~outcome.remote).astype(np.float64)
    return np.where(exits < 0, np.nan, differs)


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
