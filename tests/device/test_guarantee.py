"""Which guarantee a device runs under, what is watched of it, and what becomes of a breach."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
from msgspec import UNSET

from edgeexit.bundle.manifest import Manifest, RiskControl
from edgeexit.bundle.store import Bundle
from edgeexit.decide.drift import Breach, DriftState
from edgeexit.decide.learner import Audited
from edgeexit.decide.risk import NEVER
from edgeexit.device.config import PolicyConfig
from edgeexit.device.guarantee import Guarantee, certified, drift_found, make_guarantee, watched_control
from edgeexit.device.policy import choose_policy
from edgeexit.errors import ConfigError

Risk = Literal["accuracy-drop", "inconsistency"]
F32 = ["f32"] * 3
INT8 = ["int8"] * 3


def control(
    epsilon: float, level: float, risk: Risk = "accuracy-drop", variant: str = "int8", tolerance: float = 0.0
) -> RiskControl:
    return RiskControl(
        variant=variant,
        method="learn-then-test",
        risk=risk,
        epsilon=epsilon,
        delta=0.1,
        samples=500,
        thresholds=(level, level, 0.0),
        empirical_risk=0.0,
        data="held-out",
        tolerance=tolerance or UNSET,
    )


@pytest.fixture
def manifest(tiny_bundle: Bundle) -> Manifest:
    controls = (
        control(0.01, 0.9),
        control(0.05, 0.7),
        control(0.05, 0.6, variant="f32"),
        control(0.01, 0.95, "inconsistency"),
        control(0.02, 0.8, "inconsistency"),
        control(0.1, 0.65, "inconsistency"),
    )
    return msgspec.structs.replace(tiny_bundle.manifest, risk_controls=controls)


def guarantee(config: PolicyConfig, manifest: Manifest, told: list[Breach] | None = None) -> Guarantee | None:
    on_breach = told.append if told is not None else lambda _: None
    return make_guarantee(config, manifest, INT8, device="pi-1", on_breach=on_breach)


def test_the_loosest_certificate_of_the_risk_asked_for_is_used(manifest: Manifest) -> None:
    assert certified(manifest, INT8, 0.2, "accuracy-drop").thresholds[0] == 0.7
    assert certified(manifest, INT8, 0.03, "accuracy-drop").thresholds[0] == 0.9
    assert certified(manifest, INT8, 0.05, "inconsistency").thresholds[0] == 0.8


@pytest.mark.parametrize(
    ("variants", "epsilon", "risk"),
    [
        (INT8, 0.001, "inconsistency"),
        (F32, 0.1, "inconsistency"),
        (F32, 0.01, "accuracy-drop"),
        (["f32", "int8", "int8"], 0.05, "accuracy-drop"),
    ],
)
def test_a_guarantee_that_the_bundle_does_not_give_is_refused(
    manifest: Manifest, variants: list[str], epsilon: float, risk: Risk
) -> None:
    with pytest.raises(ConfigError) as caught:
        certified(manifest, variants, epsilon, risk)
    assert caught.value.key == "policy.epsilon"


@pytest.mark.parametrize(
    ("asked", "watched"),
    [
        (control(0.01, 0.9), 0.02),  # 0.8 is no stricter than 0.9, and promises more than 0.65 does
        (control(0.05, 0.7), 0.1),
        (control(0.05, 0.6), None),
        (control(0.05, 0.7, variant="f32"), None),
        (control(0.02, 0.8, "inconsistency"), 0.02),
    ],
)
def test_what_audits_can_see_is_what_is_watched(
    manifest: Manifest, asked: RiskControl, watched: float | None
) -> None:
    found = watched_control(manifest, asked)
    assert (None if found is None else found.epsilon) == watched


def test_without_epsilon_nothing_is_promised_and_at_0_nothing_is_watched(manifest: Manifest) -> None:
    assert guarantee(PolicyConfig(), manifest) is None
    unwatched = guarantee(PolicyConfig(epsilon=0.05, audit_fraction=0.0), manifest)
    assert unwatched is not None
    assert (unwatched.watch, unwatched.terms, unwatched.status) == (None, None, None)
    assert unwatched.control.thresholds[0] == 0.7


def test_values_are_compared_with_the_tolerance_of_their_control(tiny_bundle: Bundle) -> None:
    stated = control(0.05, 0.7, "inconsistency", tolerance=0.5)
    manifest = msgspec.structs.replace(tiny_bundle.manifest, risk_controls=(stated,))
    made = guarantee(PolicyConfig(epsilon=0.05, guarantee="inconsistency"), manifest)
    assert made is not None
    assert made.terms is not None
    assert made.terms.agree([1.0, 0.1], [1.4, 0.1])
    assert not made.terms.agree([1.0, 0.1], [1.6, 0.1])


def test_a_policy_under_a_guarantee_tightens_and_tells_why(manifest: Manifest) -> None:
    told: list[Breach] = []
    config = PolicyConfig(epsilon=0.05, guarantee="inconsistency")
    made = guarantee(config, manifest, told)
    policy = choose_policy(config, manifest, INT8, made)
    assert made is not None
    assert made.watch is not None
    assert made.watch.thresholds == (0.8, 0.8, 0.0)
    for frame in range(1000):
        policy.learn(Audited(frame, agreed=frame % 3 > 0), float(frame))  # type: ignore[attr-defined]
    assert told[0].epsilon == 0.02
    assert made.watch.state is DriftState.STOPPED
    assert made.watch.thresholds == (NEVER, NEVER, 0.0)
    said = drift_found(told[0], DriftState.TIGHTENED)
    assert "0.900" in said.what
    assert f"{told[0].disagreements} of {told[0].audits}" in (said.why or "")
    assert said.fix is not None
