import msgspec
import pytest

from edgeexit.bundle.manifest import Manifest, RiskControl
from edgeexit.bundle.store import Bundle
from edgeexit.decide.policies.local import AlwaysLocal, AnytimeLocal
from edgeexit.device.config import PolicyConfig, PolicyName
from edgeexit.device.policy import PolicyInForce, choose_policy
from edgeexit.errors import ConfigError


def control(epsilon: float, variant: str) -> RiskControl:
    return RiskControl(
        variant=variant,
        method="learn-then-test",
        risk="accuracy-drop",
        epsilon=epsilon,
        delta=0.1,
        samples=500,
        thresholds=(1.0 - epsilon,) * 3,
        empirical_risk=0.0,
        data="held-out",
    )


@pytest.fixture
def manifest(tiny_bundle: Bundle) -> Manifest:
    controls = (control(0.01, "int8"), control(0.05, "int8"), control(0.05, "f32"))
    return msgspec.structs.replace(tiny_bundle.manifest, risk_controls=controls)


@pytest.mark.parametrize(
    "name", ["hedged-gain", "anytime-local", "always-local", "first-exit", "always-offload"]
)
def test_every_policy_that_can_be_configured_has_its_name(manifest: Manifest, name: PolicyName) -> None:
    assert choose_policy(PolicyConfig(name=name), manifest, ["f32"] * 3).name == name


@pytest.mark.parametrize(
    ("variants", "epsilon"), [(["int8"] * 3, 0.001), (["f32"] * 3, 0.01), (["f32", "int8", "int8"], 0.05)]
)
def test_a_guarantee_that_the_bundle_does_not_give_is_refused(
    manifest: Manifest, variants: list[str], epsilon: float
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_policy(PolicyConfig(epsilon=epsilon), manifest, variants)
    assert caught.value.key == "policy.epsilon"


def test_the_policy_in_force_can_be_replaced_between_decisions() -> None:
    policy = PolicyInForce(AnytimeLocal())
    assert (policy.name, policy.anytime) == ("anytime-local", True)
    policy.replace(AlwaysLocal())
    assert (policy.name, policy.anytime) == ("always-local", False)
