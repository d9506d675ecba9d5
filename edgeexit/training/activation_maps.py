"""Where an exit looks: class activation maps on tokens, and losses that match them.

Source: Wang et al., Towards Learning Spatially Discriminative Feature Representations (CAM-loss, and
CAAM-CAM matching), ICCV 2021. Adapted to tokens: the map of a class is what an exit would say of it if it
were shown that patch alone, which for a linear exit on a mean is the class activation map itself; the
class-agnostic map sums the channels' magnitudes, because tokens, unlike maps behind a ReLU, have signs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeexit.errors import ConfigError, UnsupportedModel
from edgeexit.models.attached import AttachedNetwork, OwnHead
from edgeexit.models.branches import LinearFeatures, MlpFeatures
from edgeexit.models.exit_branch import ExitBranch
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.vit import ClassTokenHead, VisionTransformer
from edgeexit.training.map_matching import MapMatching
from edgeexit.training.parts import exit_modules

# A map that is the same everywhere has no range to be divided by.
_LEAST_RANGE = 1e-6


class ExitMaps:
    """Keeps the tokens that exits were shown in the last forward run, for their maps."""

    def __init__(self, network: MultiExitNetwork, matching: MapMatching) -> None:
        self.matching = matching
        self.exits = exit_modules(network)
        self.prefix = _prefix_tokens(network)
        self.tokens: dict[int, Tensor] = {}
        needed = self.exits if matching.teacher == "own" else self.exits[-1:]
        for k, exit_part in enumerate(needed):
            if not _reads_one_token(exit_part, self.prefix):
                raise ConfigError(
                    f"exit {k} of {len(needed)} has no map of a class",
                    key="maps",
                    why="it does not read one token alone",
                    fix="use branch linear or mlp on a class token, or leave maps out",
                )
        self._handles = [
            exit_part.register_forward_pre_hook(self._keep(k)) for k, exit_part in enumerate(self.exits)
        ]

    def close(self) -> None:
        """Stop looking."""
        for handle in self._handles:
            handle.remove()
        self.tokens.clear()

    def loss(self, targets: Tensor) -> Tensor:
        """How far the maps are apart, mean over exits and patches. Shapes: targets (B,); result ()."""
        tokens = dict(self.tokens)  # maps of a class run exits again
        last = len(self.exits) - 1
        if self.matching.teacher == "last":
            wanted = class_map(self.exits[last], tokens[last][:, self.prefix :], targets)
            parts = [map_distance(self._agnostic(tokens[k]), wanted) for k in range(last)]
        else:
            parts = [
                map_distance(
                    self._agnostic(tokens[k]),
                    class_map(exit_part, tokens[k][:, self.prefix :], targets),
                )
                for k, exit_part in enumerate(self.exits)
            ]
        return torch.stack(parts).mean() if parts else targets.new_zeros((), dtype=torch.float32)

    def _agnostic(self, tokens: Tensor) -> Tensor:
        return class_agnostic_map(tokens[:, self.prefix :])

    def _keep(self, k: int) -> _Keep:
        return _Keep(self.tokens, k)


@dataclass(frozen=True, slots=True)
class _Keep:
    tokens: dict[int, Tensor]
    k: int

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.tokens[self.k] = given[0]


def class_agnostic_map(patches: Tensor) -> Tensor:
    """Shapes: (B, N, D) to (B, N), from 0 to 1."""
    return normalised(patches.abs().sum(dim=2))  # B N D -> B N


@torch.no_grad()
def class_map(exit_part: nn.Module, patches: Tensor, targets: Tensor) -> Tensor:
    """What the exit says of the right class at each patch; a target, so nothing flows back.

    Shapes: patches (B, N, D), targets (B,); result (B, N), from 0 to 1.
    """
    b, n, d = patches.shape
    modes = [(module, module.training) for module in exit_part.modules()]
    exit_part.eval()
    logits: Tensor = exit_part(patches.reshape(b * n, 1, d))  # B N D -> BN 1 D -> BN classes
    for module, mode in modes:
        module.training = mode
    logits = logits.reshape(b, n, -1)  # BN classes -> B N classes
    chosen = logits.gather(2, targets[:, None, None].expand(-1, n, 1))  # B N classes -> B N 1
    return normalised(chosen[:, :, 0])


def normalised(maps: Tensor) -> Tensor:
    """Each map from 0 to 1 over all its positions. Shapes: (B, N), kept."""
    low, high = maps.amin(dim=1, keepdim=True), maps.amax(dim=1, keepdim=True)  # B N -> B 1
    return (maps - low) / (high - low).clamp_min(_LEAST_RANGE)


def map_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference; a teacher of another square grid is resized.

    Shapes: (B, N) and (B, M), N and M squares where they differ; result ().
    """
    if student.shape != teacher.shape:
        side, wanted = round(teacher.shape[1] ** 0.5), round(student.shape[1] ** 0.5)
        grid = teacher.reshape(-1, 1, side, side)  # B M -> B 1 m m
        grid = F.interpolate(grid, size=(wanted, wanted), mode="bilinear", align_corners=False)
        teacher = grid.reshape(len(student), -1)  # B 1 n n -> B N
    return (student - teacher).abs().mean()


def _prefix_tokens(network: MultiExitNetwork) -> int:
    if isinstance(network, VisionTransformer):
        return network.config.num_prefix_tokens
    if isinstance(network, AttachedNetwork):
        return network.config.backbone.num_prefix_tokens
    raise UnsupportedModel(
        f"{type(network).__name__} has no tokens that are known", expected="a ViT of edgeexit.models"
    )


def _reads_one_token(exit_part: nn.Module, prefix: int) -> bool:
    if isinstance(exit_part, ClassTokenHead):
        return True
    if isinstance(exit_part, OwnHead):
        return exit_part.head.readout == "class"
    alone = isinstance(exit_part, ExitBranch) and isinstance(exit_part.features, LinearFeatures | MlpFeatures)
    if not (alone and isinstance(exit_part, ExitBranch)) or exit_part.transfer is not None:
        return False
    layout = exit_part.features.layout
    return layout.class_token or prefix == 0
