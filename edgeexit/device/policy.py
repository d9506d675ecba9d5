"""From the configuration to a policy, and a policy that can be replaced while running."""

from __future__ import annotations

from collections.abc import Sequence

from edgeexit.bundle.manifest import Manifest
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.decision import Decision, Policy, Situation
from edgeexit.decide.learner import Learner, Observation
from edgeexit.decide.policies.fixed import AlwaysOffload
from edgeexit.decide.policies.guarded import Guarded
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.policies.local import AlwaysLocal, AnytimeLocal, FirstExit
from edgeexit.decide.policies.paced import Paced
from edgeexit.device.config import PolicyConfig
from edgeexit.device.guarantee import Guarantee, certified


class PolicyInForce:
    """A policy that asks another one, which can be replaced between two decisions."""

    def __init__(self, policy: Policy) -> None:
        self.replace(policy)

    def replace(self, policy: Policy) -> None:
        """Let another policy decide from now on."""
        self._policy = policy
        self._learner = policy if isinstance(policy, Learner) else None

    @property
    def name(self) -> str:
        """Name of the policy that decides now."""
        return self._policy.name

    @property
    def anytime(self) -> bool:
        """Whether it answers at the deadline with what it has."""
        return self._policy.anytime

    def decide(self, situation: Situation) -> Decision:
        """The next action for this frame."""
        return self._policy.decide(situation)

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Pass on what was observed, if the policy in force learns."""
        if self._learner is not None:
            self._learner.learn(observation, now_ms)


def choose_policy(
    config: PolicyConfig, manifest: Manifest, variants: Sequence[str], guarantee: Guarantee | None = None
) -> Policy:
    """The policy that the configuration names, for these variants of the stages.

    Under a `guarantee` its thresholds are in force, tightened by its watch, whatever `config` asks for.
    Raises: ConfigError when the bundle has no risk control as strict as was asked for.
    """
    if config.name == "anytime-local":
        return AnytimeLocal()
    if config.name == "always-local":
        return AlwaysLocal()
    if config.name == "first-exit":
        return FirstExit()
    if config.name == "always-offload":
        return AlwaysOffload()
    tables = quality_tables(manifest.exits, variants)

    def hedged(thresholds: Sequence[float] | None) -> Policy:
        return HedgedGain(tables=tables, thresholds=thresholds)

    used: Policy
    if guarantee is not None and guarantee.watch is not None:
        used = Guarded(hedged, guarantee.watch, guarantee.on_breach)
    elif config.epsilon is not None:
        used = hedged(certified(manifest, variants, config.epsilon, config.guarantee).thresholds)
    else:
        used = hedged(None)
    # A camera may be faster than the board: then time has a price, and earlier answers lose fewer frames.
    return Paced(used)
