"""Every policy that a study compares, made for a board and a recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeexit.decide.decision import OffloadOption, Policy
from edgeexit.decide.policies.alert import Alert
from edgeexit.decide.policies.ans import AutodidacticSurgeon
from edgeexit.decide.policies.edgent import Edgent
from edgeexit.decide.policies.fallback import WithFallback
from edgeexit.decide.policies.fixed import AlwaysOffload, StaticThreshold
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.policies.local import AlwaysLocal, AnytimeLocal, FirstExit
from edgeexit.decide.policies.network_profile import NetworkProfile
from edgeexit.decide.policies.neurosurgeon import Neurosurgeon
from edgeexit.decide.policies.spinn import Spinn, design_table
from edgeexit.replay.controller import ControllerFactory, PolicyFactory, controller_of
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording

OWN = "hedged-gain"
FLOOR = "anytime-local"

# A static threshold may cost this much accuracy against the last exit, as is usual.
TOLERATED_DROP = 0.01
_THRESHOLDS = (*(step / 100.0 for step in range(30, 100)), 0.995, 0.999, 2.0)


@dataclass(frozen=True, slots=True)
class _Contender:
    make: PolicyFactory
    transport: bool = True
    published: bool = False
    """As in its paper: answers when it is done. It is then run with the anytime floor too."""


def network_profile(profile: CostProfile, recording: Recording) -> NetworkProfile:
    """What the published policies know beforehand; they send the smallest payload of a boundary.

    Operations are taken to be in proportion to the gateway's stage times.
    """
    payloads: list[OffloadOption | None] = []
    for boundary in range(profile.stage_count):
        possible = [option for option in profile.options if option.boundary == boundary]
        payloads.append(min(possible, key=lambda option: option.payload_bytes) if possible else None)
    return NetworkProfile(
        device_ms=profile.stage_ms,
        gateway_ms=profile.gateway_stage_ms,
        accuracy=recording.prior_quality,
        payloads=tuple(payloads),
        macs=profile.gateway_stage_ms,
    )


def static_threshold(recording: Recording) -> float:
    """The lowest threshold for all exits that costs at most a point of the last exit's quality.

    It is chosen on the recording itself, which favours it.
    """
    last = float(recording.quality[:, -1].mean())
    rows = np.arange(recording.sample_count)
    for threshold in _THRESHOLDS:
        reached = recording.scores >= threshold
        reached[:, -1] = True
        quality = float(recording.quality[rows, reached.argmax(axis=1)].mean())
        if quality >= last - TOLERATED_DROP:
            return threshold
    return _THRESHOLDS[-1]


def _spinn(profile: CostProfile, recording: Recording) -> Policy:
    # Its table is made from the recording itself, which favours it.
    known = network_profile(profile, recording)
    return Spinn(known, design_table(recording.scores, recording.quality, known))


def _first_local(profile: CostProfile, recording: Recording) -> Policy:
    return StaticThreshold(static_threshold(recording), local_stages=1)


_CONTENDERS: Mapping[str, _Contender] = {
    OWN: _Contender(lambda _, recording: HedgedGain(tables=recording.tables)),
    FLOOR: _Contender(lambda _profile, _recording: AnytimeLocal(), transport=False),
    "first-exit": _Contender(lambda _profile, _recording: FirstExit(), transport=False),
    "always-local": _Contender(lambda _profile, _recording: AlwaysLocal(), transport=False),
    "static-threshold": _Contender(
        lambda _, recording: StaticThreshold(static_threshold(recording)), transport=False, published=True
    ),
    "static-threshold-send": _Contender(_first_local, published=True),
    "always-offload": _Contender(lambda _profile, _recording: AlwaysOffload(), published=True),
    "neurosurgeon": _Contender(
        lambda profile, recording: Neurosurgeon(network_profile(profile, recording)), published=True
    ),
    "edgent": _Contender(
        lambda profile, recording: Edgent(network_profile(profile, recording)), published=True
    ),
    "edgent-dynamic": _Contender(
        lambda profile, recording: Edgent(network_profile(profile, recording), dynamic=True), published=True
    ),
    "spinn": _Contender(_spinn, published=True),
    "alert": _Contender(
        lambda profile, recording: Alert(network_profile(profile, recording)), transport=False
    ),
    "ans": _Contender(
        lambda profile, recording: AutodidacticSurgeon(network_profile(profile, recording)), published=True
    ),
}


def contenders() -> dict[str, ControllerFactory]:
    """All policies by name; published ones also with the anytime floor, as `name+fallback`."""
    made: dict[str, ControllerFactory] = {}
    for name, contender in _CONTENDERS.items():
        # The others as in their papers, which know of no cancelling.
        made[name] = controller_of(contender.make, transport=contender.transport, cancels=name == OWN)
        if contender.published:
            made[f"{name}+fallback"] = controller_of(
                _with_fallback(contender.make), transport=contender.transport, cancels=False
            )
    return made


def _with_fallback(make: PolicyFactory) -> Callable[[CostProfile, Recording], Policy]:
    return lambda profile, recording: WithFallback(make(profile, recording))
