"""One exit: a branch's features, what the exit before said if it is told, and the answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeexit.models.branch_config import AnswerConfig, BranchConfig
from edgeexit.models.branches import (
    CnnFeatures,
    Features,
    LinearFeatures,
    MixerFeatures,
    MlpFeatures,
    ResMlpFeatures,
    ViTFeatures,
)
from edgeexit.models.branches_lgvit import GlobalFeatures, LocalFeatures
from edgeexit.models.tokens import TokenLayout


def branch_features(config: BranchConfig, layout: TokenLayout) -> Features:
    """The part of a branch before its last layer.

    Raises: ValueError when the branch does not fit the grid of patches.
    """
    dropout = config.dropout
    match config.kind:
        case "linear":
            return LinearFeatures(layout)
        case "mlp":
            return MlpFeatures(layout, dropout)
        case "cnn_ignore":
            return CnnFeatures(layout, "ignore", dropout)
        case "cnn_add":
            return CnnFeatures(layout, "add", dropout)
        case "cnn_project":
            return CnnFeatures(layout, "project", dropout)
        case "vit":
            return ViTFeatures(layout)
        case "mlp_mixer":
            return MixerFeatures(layout)
        case "resmlp":
            return ResMlpFeatures(layout)
        case "local":
            return LocalFeatures(layout, light=False)
        case "local_light":
            return LocalFeatures(layout, light=True)
        case "global_2":
            return GlobalFeatures(layout, stride=2)
        case "global_3":
            return GlobalFeatures(layout, stride=3)


class Transfer(nn.Module):
    """What the exit before said, as features of this one.

    Source: forward knowledge transfer, Han et al., Dynamic Perceiver, ICCV 2023.
    """

    def __init__(self, outputs: int, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(outputs, dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, previous: Tensor) -> Tensor:
        """Shapes: (B, outputs) to (B, D)."""
        return torch.relu(self.norm(self.fc(previous)))  # B outputs -> B D


class ExitBranch(nn.Module):
    """A branch with its last layer. It gives plain numbers; `answer` makes them what the exit answers."""

    def __init__(
        self, config: BranchConfig, layout: TokenLayout, answer: AnswerConfig, *, transfer: bool
    ) -> None:
        super().__init__()
        self.features = branch_features(config, layout)
        self.transfer = Transfer(answer.outputs, layout.embed_dim) if transfer else None
        self.fc = nn.Linear(self.features.dim + (layout.embed_dim if transfer else 0), answer.outputs)

    def forward(self, tokens: Tensor, previous: Tensor | None = None) -> Tensor:
        """Shapes: tokens (B, P + N, D), previous (B, outputs) if told; result (B, outputs)."""
        features = self.features(tokens)  # B P+N D -> B F
        if self.transfer is not None and previous is not None:
            features = torch.cat((features, self.transfer(previous)), dim=1)  # B F -> B F+D
        numbers: Tensor = self.fc(features)  # B F -> B outputs
        return numbers


class Answer(nn.Module):
    """From a branch's numbers to what the exit answers: logits as they are, or value and spread."""

    def __init__(self, config: AnswerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, numbers: Tensor) -> Tensor:
        """Shapes: (B, outputs), kept. Units: value and spread in those of the targets; spread above 0."""
        if self.config.task == "classification":
            return numbers
        value = self.config.value_offset + self.config.value_scale * numbers[:, :1]  # B 2 -> B 1
        spread = self.config.value_scale * nn.functional.softplus(numbers[:, 1:])  # B 2 -> B 1
        return torch.cat((value, spread), dim=1)  # B 1, B 1 -> B 2
