"""Bundles of ViTs with random weights, made once under build/.

Random weights take as long as trained ones. So that deeper exits promise more, as trained ones do, the
network's own last exit is taken for the truth; where answers matter, the other exits are fitted to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Precision

if TYPE_CHECKING:
    from torch import Tensor

    from edgeexit.convert.plan import Tolerances
    from edgeexit.models.vit import VisionTransformer, ViTConfig

FittedName = Literal["vit-tiny", "vit-small"]

BUILD = Path(__file__).parent.parent / "build" / "benchmarks"

# Enough for calibration tables of six bins; ViT-Small answers some ten images a second on one core.
SAMPLES = 192
# Twice as many as an exit sees features.
FIT_SAMPLES = 256
CLASSES = 10
# Images are fields of colour of so many knots a side, so that no two look alike, with a little noise.
KNOTS = 4
NOISE = 4.0
# How many of its 128 features each exit sees. The features of random blocks tell nearly as much after three
# of them as after twelve; seeing few, an early exit is right as often as one of a trained network.
SEEN = (8, 16, 64, 128)
# Ridge penalty of the fit, relative: enough to invert what few samples determine.
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images and what is taken for the truth. Shapes: images (N, 3, S, S), targets (N,)."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]


def random_images(count: int, seed: int, size: int = 224) -> NDArray[np.uint8]:
    """Smooth fields of random colour. Shapes: result (count, 3, size, size)."""
    rng = np.random.default_rng(seed)
    knots = rng.uniform(0.0, 255.0, (count, 3, KNOTS, KNOTS))
    # Linear interpolation between knots is a product with one matrix a side.
    at = np.linspace(0.0, KNOTS - 1.0, size)
    weights = np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(KNOTS)))  # (S, KNOTS)
    fields = weights @ knots @ weights.T  # (N, 3, KNOTS, KNOTS) -> (N, 3, S, S)
    fields += rng.normal(0.0, NOISE, fields.shape)
    return fields.clip(0.0, 255.0).astype(np.uint8)


def vit_tiny_bundle(root: Path = BUILD) -> Path:
    """ViT-Tiny (224 pixels, patch 16, dim 192, depth 12, four exits) as a bundle, f32 and int8."""
    from edgeexit.convert.plan import Tolerances
    from edgeexit.models.vit import VIT_TINY

    # Logits of random weights lie close together: what int8 answers to such images means nothing here.
    return _bundle("vit-tiny", VIT_TINY, ("f32", "int8"), root, Tolerances(agreement=0.0), fitted=False)


def vit_tiny_whole(root: Path = BUILD) -> Path:
    """The same network, not cut, all four heads in one f32 file."""
    from edgeexit.convert.whole import lower_whole
    from edgeexit.models.vit import vit_tiny

    out = root / "vit-tiny-whole.tflite"
    if not out.exists():
        lower_whole(vit_tiny(), np.zeros((1, 3, 224, 224), dtype=np.float32), out)
    return out


def fitted_bundle(name: FittedName, root: Path = BUILD) -> Path:
    """ViT-Tiny or ViT-Small with four exits, fitted, of ten classes.

    Patches are of 8 pixels and images of 112: as many tokens as usual, but images of a quarter of the
    bytes. A bundle that is there already is not made again.
    """
    out = root / f"{name}-fitted"
    if (out / "manifest.json").is_file():
        # Importing the converter only to see that would take a minute.
        return out
    from edgeexit.convert.plan import Tolerances
    from edgeexit.models.vit import VIT_TINY

    config = replace(VIT_TINY, img_size=112, patch_size=8, num_classes=CLASSES)
    if name == "vit-tiny":
        return _bundle(out.name, config, ("f32", "int8"), root, Tolerances(agreement=0.0), fitted=True)
    config = replace(config, embed_dim=384, num_heads=6)
    return _bundle(out.name, config, ("f32",), root, Tolerances(), fitted=True)


def _bundle(
    name: str,
    config: ViTConfig,
    variants: tuple[Precision, ...],
    root: Path,
    tolerances: Tolerances,
    *,
    fitted: bool,
) -> Path:
    from edgeexit.convert.conversion import convert
    from edgeexit.convert.plan import ConversionPlan
    from edgeexit.convert.progress import ProgressLines
    from edgeexit.models.vit import vit

    network = vit(config, seed=0)
    if fitted:
        _fit_exits(network, random_images(FIT_SAMPLES, 3, config.img_size))
    images = random_images(SAMPLES, 1, config.img_size)
    plan = ConversionPlan(
        name=f"{name}-random",
        version="1.0.0",
        network=(
            f"ViT, {config.img_size} pixels, patch {config.patch_size}, dim {config.embed_dim}, "
            f"depth {config.depth}, exits after {', '.join(map(str, config.exits))} blocks"
        ),
        dataset="fields of colour, labelled by the network itself",
        licence="MIT",
        labels=tuple(f"class {i}" for i in range(config.num_classes)),
        variants=variants,
        tolerances=tolerances,
        codec_samples=8,
    )
    out = root / name
    data = LabelledImages(images, _answers(network, images))
    convert(network, plan, calibration=data, test=None, out=out, progress=ProgressLines(print))
    return out


def _answers(network: VisionTransformer, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What the last exit says. Shapes: images (N, 3, S, S), result (N,)."""
    import torch

    from edgeexit.convert.plan import network_input

    with torch.no_grad():
        return np.array(
            [int(network(torch.from_numpy(network_input(image[None])))[-1].argmax()) for image in images]
        )


def _fit_exits(network: VisionTransformer, images: NDArray[np.uint8]) -> None:
    """Let the last exit tell its classes apart, and every other agree with it as far as it sees."""
    import torch
    from torch import nn

    from edgeexit.convert.plan import network_input

    layers = [
        layer
        for name, layer in network.named_modules()
        if name.endswith("head.fc") and isinstance(layer, nn.Linear)
    ]
    seen: list[list[Tensor]] = [[] for _ in layers]

    def keep(of: list[Tensor], given: Sequence[Tensor]) -> None:
        of.append(given[0])

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, of=of: keep(of, given))
        for layer, of in zip(layers, seen, strict=True)
    ]
    with torch.no_grad():
        for image in images:
            network(torch.from_numpy(network_input(image[None])))
        for hook in hooks:
            hook.remove()
        features = [torch.cat(of) for of in seen]  # of (1, 128) each -> (N, 128)
        last, wanted = layers[-1], _standard(features[-1])[0]
        drawn = torch.from_numpy(
            np.random.default_rng(5).normal(0.0, 1.0, tuple(last.weight.shape)).astype(np.float32)
        )
        wanted = wanted @ drawn.T  # (N, 128) -> (N, classes)
        for layer, feature, count in zip(layers, features, SEEN, strict=True):
            standard, mean, deviation = _standard(feature)
            x = standard[:, :count]  # (N, 128) -> (N, count)
            penalty = RIDGE * len(x) * torch.eye(count)
            weight = torch.linalg.solve(x.T @ x + penalty, x.T @ wanted).T  # (classes, count)
            layer.weight.zero_()
            layer.weight[:, :count] = weight / deviation[:count]
            layer.bias.copy_(-(layer.weight @ mean))


def _standard(feature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features of mean 0 and deviation 1, with what they had before. Shapes: (N, 128), (128,), (128,)."""
    mean, deviation = feature.mean(0), feature.std(0) + 1e-6
    return (feature - mean) / deviation, mean, deviation
