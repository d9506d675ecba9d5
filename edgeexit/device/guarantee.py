"""The guarantee that early exits run under here, and the watch over it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

from msgspec import UnsetType

from edgeexit.bundle.manifest import Manifest, RiskControl
from edgeexit.decide.drift import AuditTerms, Breach, DriftState, DriftStatus, DriftWatch
from edgeexit.device.config import GuaranteeName, PolicyConfig
from edgeexit.errors import ConfigError, DeviceError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What is promised of early exits, and how it is watched; nothing is where `watch` is None.

    `on_breach` is called in the loop's thread, when the tighter thresholds are in force.
    """

    control: RiskControl
    watch: DriftWatch | None
    terms: AuditTerms | None
    on_breach: Callable[[Breach], None]

    @property
    def status(self) -> DriftStatus | None:
        """How the watch stands; None without one."""
        return None if self.watch is None else self.watch.status


def make_guarantee(
    config: PolicyConfig,
    manifest: Manifest,
    variants: Sequence[str],
    *,
    device: str,
    on_breach: Callable[[Breach], None],
) -> Guarantee | None:
    """The guarantee that the configuration asks for; None where frames do not leave early by one.

    Raises: ConfigError when the bundle has no risk control as strict as was asked for.
    """
    if config.epsilon is None:
        return None
    control = certified(manifest, variants, config.epsilon, config.guarantee)
    watched = watched_control(manifest, control)
    if config.audit_fraction == 0.0 or watched is None:
        why = "policy.audit_fraction is 0" if watched is not None else "the bundle certifies no inconsistency"
        _log.info("early exits are not watched for drift: %s", why)
        return Guarantee(control, None, None, on_breach)
    tolerance = None if isinstance(watched.tolerance, UnsetType) else watched.tolerance
    return Guarantee(
        control,
        DriftWatch(control.thresholds, epsilon=watched.epsilon, delta=watched.delta),
        AuditTerms(config.audit_fraction, salt=crc32(device.encode()), tolerance=tolerance),
        on_breach,
    )


def certified(
    manifest: Manifest, variants: Sequence[str], epsilon: float, risk: GuaranteeName
) -> RiskControl:
    """The loosest control of this risk within `epsilon` that was fitted for these variants.

    Raises: ConfigError when the bundle has none: a guarantee for other variants is none for these.
    """
    named = [control for control in manifest.risk_controls if control.risk == risk]
    fitting = [
        control
        for control in named
        if control.epsilon <= epsilon and all(variant == control.variant for variant in variants)
    ]
    if not fitting:
        held = ", ".join(f"{control.variant} {control.epsilon:g}" for control in named)
        raise ConfigError(
            f"no risk control of {risk} within {epsilon:g}",
            key="policy.epsilon",
            why=f"the stages run as {', '.join(variants)}; the bundle certifies {held or 'nothing'}",
            fix="leave policy.epsilon out, or convert the network with a risk control for these variants",
        )
    return max(fitting, key=lambda control: control.epsilon)


def watched_control(manifest: Manifest, control: RiskControl) -> RiskControl | None:
    """The promise that audits can test at the thresholds of `control`; None where the bundle makes none.

    Without the truth only inconsistency is seen. Thresholds certified for it are certified with all
    stricter ones, so that the tightest whose thresholds are no stricter than these holds for these too.
    """
    if control.risk == "inconsistency":
        return control
    holding = [
        each
        for each in manifest.risk_controls
        if each.risk == "inconsistency"
        and each.variant == control.variant
        and all(level <= here for level, here in zip(each.thresholds, control.thresholds, strict=True))
    ]
    return min(holding, key=lambda each: each.epsilon, default=None)


def drift_found(breach: Breach, state: DriftState) -> DeviceError:
    """What a breach means, in words for people."""
    if state is DriftState.STOPPED:
        what = "early exits have drifted, and are stopped"
    else:
        what = f"early exits have drifted; thresholds are tightened to {breach.thresholds[0]:.3f}"
    return DeviceError(
        what,
        why=(
            f"{breach.disagreements} of {breach.audits} audited answers were not the last exit's, "
            f"where {breach.epsilon:g} of them may be"
        ),
        fix="look at what the camera sees now; convert the network again with images like these",
    )
