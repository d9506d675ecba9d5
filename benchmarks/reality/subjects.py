"""What is run: a bundle with images whose truth is known.

Two are needed. One plays a slower board, so that scheduling on this machine is small against its stages:
the demo's bundle where it was made, else ViT-Tiny. The other computes in earnest for long enough to feel
a control group's quota: ViT-Small in f32.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._vit_tiny import BUILD, noise_images, vit_tiny_bundle
from benchmarks.reality.small_network import vit_small_bundle
from edgeexit.bundle.store import Bundle, open_bundle
from edgeexit.decide.evidence import score_logits
from edgeexit.replay.record import Truth, read_truth
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.selection import open_verified

# All stages together on the played board: stages of some 25 ms, long against a wake-up of this machine.
PLAYED_FULL_MS = 100.0
# Beyond this factor, whatever other programs leave in the caches of this machine would be stretched into tens
# of milliseconds; a Raspberry Pi 4 is played with about as much.
MOST_FACTOR = 30.0
# Enough frames without repetition to be a sample; more only makes recording them longer.
DEMO_IMAGES = 300
NOISE_IMAGES = 64
# Not the seed of the images that the bundle was calibrated on.
NOISE_SEED = 11


@dataclass(frozen=True, slots=True)
class Subject:
    """A bundle and its images; `target_ms`, what all stages take on the board that is played, None for none.

    `truth` holds the class number of every image, by its path in `images`.
    """

    name: str
    bundle: Bundle
    images: Path
    truth: Truth
    target_ms: float | None
    about: str


def played_subject(demo: Path, work: Path) -> Subject:
    """The subject that plays a slower board; the demo's bundle where it is there. Raises: BundleError."""
    if (demo / "bundle" / "manifest.json").is_file() and (demo / "images").is_dir():
        bundle = open_bundle(demo / "bundle")
        images, truth = _some_images(demo / "images", bundle, work / "images-demo")
        about = f"the demo's bundle ({bundle.manifest.provenance.network}) on its test images"
        return Subject("demo", bundle, images, truth, PLAYED_FULL_MS, about)
    bundle = _vit_tiny()
    images, truth = _noise(bundle, work / "images-tiny")
    about = "ViT-Tiny with random weights on noise; its own last exit in f32 is taken for the truth"
    return Subject("vit-tiny", bundle, images, truth, PLAYED_FULL_MS, about)


def computing_subject(work: Path) -> Subject:
    """ViT-Small in f32, at the speed of this machine. Raises: BundleError."""
    bundle = vit_small_bundle()
    images, truth = _noise(bundle, work / "images-small")
    about = "ViT-Small in f32 with random weights on noise; its own last exit is taken for the truth"
    return Subject("vit-small", bundle, images, truth, None, about)


def _vit_tiny() -> Bundle:
    """The bundle as it stands: importing the converter only to see that would take a minute."""
    made = BUILD / "vit-tiny"
    return open_bundle(made if (made / "manifest.json").is_file() else vit_tiny_bundle())


def _some_images(folder: Path, bundle: Bundle, out: Path) -> tuple[Path, Truth]:
    """A copy of evenly chosen images: the device reads a folder, all of it."""
    whole = read_truth(folder, bundle.manifest.labels)
    names = sorted(whole)
    chosen = [
        names[index] for index in np.linspace(0, len(names) - 1, min(DEMO_IMAGES, len(names))).astype(int)
    ]
    shutil.rmtree(out, ignore_errors=True)
    for name in chosen:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, out / name)
    return out, {name: whole[name] for name in chosen}


def _noise(bundle: Bundle, out: Path) -> tuple[Path, Truth]:
    """Images of noise, and what the network itself says to them in f32."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    runner, _ = open_verified(bundle, prefer="f32")
    manifest = bundle.manifest
    truth: Truth = {}
    for index, pixels in enumerate(noise_images(NOISE_IMAGES, NOISE_SEED)):
        name = f"noise-{index:03d}.bmp"
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0))  # (3, H, W) -> (H, W, 3)
        # Noise cannot be compressed; a bitmap at least costs no time to decode.
        Image.fromarray(image).save(out / name)
        tensors: Tensors = input_tensors(image, manifest.preprocessing, manifest.boundaries[0].tensors[0])
        for stage in range(manifest.stage_count):
            done = runner.run(stage, tensors)
            tensors = done.boundary
        truth[name] = float(score_logits(done.output.reshape(-1), 1.0)[0])
    runner.close()
    return out, truth
