"""Which parts of a network are trained when, and which exits they are trained for.

Source: classifier-wise, layer-wise and end-to-end, Bakhtiarnia, Zhang, Iosifidis, BMVC 2021;
backbone first, then jointly: the "mixed" regime of How to Train Your Multi-Exit Model, ICML 2025.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of training, with its own warm-up and cosine.

    `weights` are the exits' shares in the loss, 0 for none; `backbone` and `branches` say of each stage
    whether its blocks and its exit's own part are trained. What is not trained stays bit for bit.

    Shapes: weights, backbone, branches (K,). Units: share, fraction of the budget.
    """

    name: str
    share: float
    weights: tuple[float, ...]
    backbone: tuple[bool, ...]
    branches: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Joint:
    """Everything at once, the final exit counted `final_weight` times."""

    final_weight: float = 2.0

    def phases(self, exits: int, *, own_head: bool) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("joint", 1.0, _final(exits, self.final_weight), (True,) * exits, (True,) * exits),)


@dataclass(frozen=True, slots=True)
class FrozenBackbone:
    """Classifier-wise: only exits are trained.

    A backbone without weights of its own is trained with its last exit first, for `backbone_share` of the
    budget. A last exit that came with the backbone, or was trained with it, stays as it is.
    """

    backbone_share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing. Raises: ValueError."""
        if not 0.0 <= self.backbone_share < 1.0:
            raise ValueError("backbone_share must be from 0 to below 1")

    def phases(self, exits: int, *, own_head: bool) -> tuple[Phase, ...]:
        """One phase, or two."""
        last_stays = own_head or self.backbone_share > 0
        if exits == 1 and last_stays:
            return (_backbone(1, 1.0),)
        trained = (True,) * (exits - 1) + (not last_stays,)
        weights = tuple(float(each) for each in trained)
        share = 1.0 - self.backbone_share
        branches = Phase("branches", share, weights, (False,) * exits, trained)
        if self.backbone_share == 0:
            return (branches,)
        return (_backbone(exits, self.backbone_share), branches)


@dataclass(frozen=True, slots=True)
class LayerWise:
    """Stage 0 with its exit, then stage 1 with its exit while stage 0 stays, and so on, equally long."""

    def phases(self, exits: int, *, own_head: bool) -> tuple[Phase, ...]:
        """As many phases as exits."""
        phases = []
        for k in range(exits):
            only = tuple(i == k for i in range(exits))
            phases.append(Phase(f"stage {k}", 1.0 / exits, tuple(map(float, only)), only, only))
        return tuple(phases)


@dataclass(frozen=True, slots=True)
class BackboneFirst:
    """The backbone with its last exit alone for `backbone_share` of the budget, then everything jointly."""

    backbone_share: float = 0.5
    final_weight: float = 2.0

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing. Raises: ValueError."""
        if not 0.0 < self.backbone_share < 1.0:
            raise ValueError("backbone_share must lie between 0 and 1")

    def phases(self, exits: int, *, own_head: bool) -> tuple[Phase, ...]:
        """Two phases."""
        weights, everything = _final(exits, self.final_weight), (True,) * exits
        joint = Phase("joint", 1.0 - self.backbone_share, weights, everything, everything)
        return (_backbone(exits, self.backbone_share), joint)


Method = Joint | FrozenBackbone | LayerWise | BackboneFirst


def _final(exits: int, final_weight: float) -> tuple[float, ...]:
    return (1.0,) * (exits - 1) + (final_weight,)


def _backbone(exits: int, share: float) -> Phase:
    last = (False,) * (exits - 1) + (True,)
    return Phase("backbone", share, tuple(map(float, last)), (True,) * exits, last)
