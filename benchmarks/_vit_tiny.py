"""A bundle of ViT-Tiny size, and the same network in one piece, made once under build/.

Random weights serve: they take as long as trained ones. So that deeper exits promise more, as trained
ones do, the network's own last exit is taken for the truth on images of noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BUILD = Path(__file__).parent.parent / "build" / "benchmarks"

# Enough for calibration tables of a few bins; ViT-Tiny answers some 20 images a second on one core.
SAMPLES = 96


@dataclass(frozen=True, slots=True)
class NoiseSet:
    """Images of noise. Shapes: images (N, 3, 224, 224), targets (N,)."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]


def noise_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Images of noise at random brightness. Shapes: result (count, 3, 224, 224)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 224, 224)) * rng.uniform(0.2, 1.0, (count, 3, 1, 1))
    return images.astype(np.uint8)


def vit_tiny_bundle(root: Path = BUILD) -> Path:
    """ViT-Tiny (224 pixels, patch 16, dim 192, depth 12, four exits) as a bundle, f32 and int8."""
    import torch

    from edgeexit.convert.conversion import convert
    from edgeexit.convert.plan import ConversionPlan, Tolerances, network_input
    from edgeexit.convert.progress import ProgressLines
    from edgeexit.models.vit import VIT_TINY, vit_tiny

    network = vit_tiny()
    images = noise_images(SAMPLES, seed=1)
    with torch.no_grad():
        answers = [
            int(network(torch.from_numpy(network_input(image[None])))[-1].argmax()) for image in images
        ]
    plan = ConversionPlan(
        name="vit-tiny-random",
        version="1.0.0",
        network="ViT-Tiny, 224 pixels, patch 16, dim 192, depth 12, exits after 3, 6, 9 and 12 blocks",
        dataset="noise, labelled by the network itself",
        licence="MIT",
        labels=tuple(f"class {i}" for i in range(VIT_TINY.num_classes)),
        # Logits of random weights lie close together: what int8 answers to noise means nothing here.
        tolerances=Tolerances(agreement=0.0),
        codec_samples=8,
    )
    out = root / "vit-tiny"
    convert(
        network,
        plan,
        calibration=NoiseSet(images, np.array(answers)),
        test=None,
        out=out,
        progress=ProgressLines(print),
    )
    return out


def vit_tiny_whole(root: Path = BUILD) -> Path:
    """The same network, not cut, all four heads in one f32 file."""
    from edgeexit.convert.whole import lower_whole
    from edgeexit.models.vit import vit_tiny

    out = root / "vit-tiny-whole.tflite"
    if not out.exists():
        lower_whole(vit_tiny(), np.zeros((1, 3, 224, 224), dtype=np.float32), out)
    return out
