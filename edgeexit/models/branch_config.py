"""Which exit branches there are, and what an exit answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgeexit.bundle.manifest import Task

# The seven of Multi-Exit ViT; a bare linear exit; the heads of LGViT (its convolutional ones with and without
# the depth-wise convolution, its attention over every second and every third patch).
BranchKind = Literal[
    "mlp",
    "cnn_ignore",
    "cnn_add",
    "cnn_project",
    "vit",
    "mlp_mixer",
    "resmlp",
    "linear",
    "local",
    "local_light",
    "global_2",
    "global_3",
]
BRANCH_KINDS: tuple[BranchKind, ...] = get_args(BranchKind)


@dataclass(frozen=True, slots=True)
class BranchConfig:
    """One exit branch. `dropout` is used by those with an MLP head: mlp and the three CNN ones."""

    kind: BranchKind
    # As in the re-implementation whose heads these are.
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises: ValueError.
        """
        if self.kind not in BRANCH_KINDS:
            raise ValueError(f"branch {self.kind!r} is unknown")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}, not from 0 to below 1")


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """What every exit answers: logits of `classes`, or value and spread.

    A regression's value is `value_offset` plus `value_scale` times what the branch gives, and its spread
    that many times as large, so that a branch learns numbers near 1 whatever the unit is.
    """

    task: Task = "classification"
    classes: int = 0
    value_offset: float = 0.0
    value_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be answered.

        Raises: ValueError.
        """
        if self.task == "classification" and self.classes < 1:
            raise ValueError("a classification needs classes")
        if self.task == "regression" and self.classes:
            raise ValueError("a regression has no classes")
        if not self.value_scale > 0.0:
            raise ValueError(f"value_scale is {self.value_scale}, not above 0")

    @property
    def outputs(self) -> int:
        """Numbers that an exit gives: one a class, or value and spread."""
        return self.classes if self.task == "classification" else 2
