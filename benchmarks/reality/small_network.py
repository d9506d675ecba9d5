"""A network whose stages take long enough on a workstation to feel a quota: ViT-Small in f32, made once.

A control group's quota is granted every few milliseconds and accounted in ticks of four: a stage must last
several of those before its time is the share's and not a matter of luck. Random weights serve, as in
`_vit_tiny`: the network's own last exit is taken for the truth on images of noise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks._vit_tiny import BUILD, NoiseSet, noise_images
from edgeexit.bundle.store import Bundle, open_bundle

# Enough for calibration tables of a few bins; the network answers some ten images a second.
SAMPLES = 48
CLASSES = 100


def vit_small_bundle(root: Path = BUILD) -> Bundle:
    """ViT-Small (224 pixels, patch 16, dim 384, depth 12, four exits) as a bundle, f32 only."""
    out = root / "vit-small"
    if (out / "manifest.json").is_file():
        return open_bundle(out)
    import torch

    from edgeexit.convert.conversion import convert
    from edgeexit.convert.plan import ConversionPlan, network_input
    from edgeexit.convert.progress import ProgressLines
    from edgeexit.models.vit import VIT_TINY, vit

    config = replace(VIT_TINY, embed_dim=384, num_heads=6, num_classes=CLASSES)
    network = vit(config, seed=0)
    images = noise_images(SAMPLES, seed=1)
    with torch.no_grad():
        answers = [
            int(network(torch.from_numpy(network_input(image[None])))[-1].argmax()) for image in images
        ]
    plan = ConversionPlan(
        name="vit-small-random",
        version="1.0.0",
        network="ViT-Small, 224 pixels, patch 16, dim 384, depth 12, exits after 3, 6, 9 and 12 blocks",
        dataset="noise, labelled by the network itself",
        licence="MIT",
        labels=tuple(f"class {i}" for i in range(CLASSES)),
        variants=("f32",),
        codec_samples=8,
    )
    convert(
        network,
        plan,
        calibration=NoiseSet(images, np.array(answers)),
        test=None,
        out=out,
        progress=ProgressLines(print),
    )
    return open_bundle(out)
