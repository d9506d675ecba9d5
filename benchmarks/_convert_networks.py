"""The networks that the benchmark of conversion converts, all of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgeexit.models.protocol import IMAGE, MultiExitNetwork

State = dict[str, Tensor]
CLASSES = 10


class LatentStage(nn.Module):
    """A map that goes through a convolution, and a latent that looks at it by cross-attention.

    Shapes: map (1, D, S, S), latent (1, L, D).
    """

    def __init__(self, width: int, latents: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.conv = nn.Conv2d(3 if first else width, width, 3, stride=2 if first else 1, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.latent = nn.Parameter(torch.randn(1, latents, width) * 0.02) if first else None
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: image (1, 3, 2 S, 2 S) for the first stage, else map and latent."""
        taken = state[IMAGE] if self.first else state["map"]
        features = torch.relu(self.norm(self.conv(taken)))  # 1 D S S
        latent = self.latent if self.latent is not None else state["latent"]  # 1 L D
        seen = features.flatten(2).transpose(1, 2)  # 1 D S S -> 1 S*S D
        latent = latent + self.attend(self.before(latent), seen, seen, need_weights=False)[0]
        latent = latent + self.think(self.behind(latent))
        output = self.head(latent.mean(dim=1))  # 1 L D -> 1 classes
        return {} if self.last else {"map": features, "latent": latent}, output


class ConvStage(nn.Module):
    """Two convolutions and an exit on the mean of their maps."""

    def __init__(self, taken: int, given: int, *, last: bool, first: bool) -> None:
        super().__init__()
        self.name, self.last = IMAGE if first else "map", last
        self.body = nn.Sequential(
            nn.Conv2d(taken, given, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(given),
            nn.Hardswish(),
            nn.Conv2d(given, given, 3, padding=1, groups=given, bias=False),
            nn.BatchNorm2d(given),
            nn.Conv2d(given, given, 1),
            nn.ReLU6(),
        )
        self.head = nn.Linear(given, CLASSES)

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: (1, C, S, S) to (1, D, S / 2, S / 2)."""
        features = self.body(state[self.name])
        return {} if self.last else {"map": features}, self.head(features.mean(dim=(2, 3)))


class Staged(nn.Module):
    """Stages as they are."""

    def __init__(self, stages: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)


@dataclass(frozen=True, slots=True)
class Case:
    """A network to convert. Units: image_size, pixels a side."""

    name: str
    what: str
    make: Callable[[], MultiExitNetwork]
    image_size: int
    channels: int
    classes: int


def cases() -> tuple[Case, ...]:
    """All of them, the quick ones first."""
    return (
        Case("two-tensor-state", "a map and a latent, 64 pixels, three exits", _latent, 64, 3, CLASSES),
        Case("cnn", "convolutions, 64 pixels, four exits", _convolutions, 64, 3, CLASSES),
        Case("vit-small-32", "ViT, 32 pixels, dim 96, depth 8, four exits", _vit_small, 32, 3, CLASSES),
        Case("vit-tiny-224", "ViT-Tiny, 224 pixels, four exits", _vit_tiny, 224, 3, 1000),
        Case("deit-tiny-timm", "timm's DeiT-Tiny, three exits attached", _deit, 224, 3, CLASSES),
    )


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def _latent() -> MultiExitNetwork:
    made = _seeded(lambda: Staged([LatentStage(64, 16, first=k == 0, last=k == 2) for k in range(3)]))
    assert isinstance(made, Staged)
    return made


def _convolutions() -> MultiExitNetwork:
    widths = (3, 32, 64, 128, 256)
    made = _seeded(
        lambda: Staged([ConvStage(widths[k], widths[k + 1], first=k == 0, last=k == 3) for k in range(4)])
    )
    assert isinstance(made, Staged)
    return made


def _vit_small() -> MultiExitNetwork:
    from edgeexit.models.vit import VIT_TINY, vit

    config = replace(
        VIT_TINY, img_size=32, patch_size=4, embed_dim=96, depth=8, exits=(2, 4, 6, 8), num_classes=CLASSES
    )
    return vit(config, seed=0).eval()


def _vit_tiny() -> MultiExitNetwork:
    from edgeexit.models.vit import vit_tiny

    return vit_tiny().eval()


def _deit() -> MultiExitNetwork:
    from edgeexit.models.attach import attach_exits
    from edgeexit.models.torchvision_operators import make_importable

    make_importable()
    import timm

    def make() -> nn.Module:
        model: nn.Module = timm.create_model("deit_tiny_patch16_224")
        return model

    return attach_exits(_seeded(make), (3, 6, 9), "mlp", classes=CLASSES, final="linear")
