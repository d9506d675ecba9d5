"""What is run: a bundle with images whose truth is known.

Two are needed. One plays a slower board, so that scheduling on this machine is small against its stages.
The other computes at the speed of this machine, for long enough to feel a control group's quota.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._random_vit import FittedName, fitted_bundle, random_images
from edgeexit.bundle.store import Bundle, open_bundle
from edgeexit.decide.evidence import score_logits
from edgeexit.replay.record import Truth
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.selection import open_verified

# All stages together on the played board: stages of 25 ms, long against a wake-up of this machine.
PLAYED_FULL_MS = 100.0
# Enough images without repetition to be a sample; more only makes recording them longer.
IMAGES = 96
# Not a seed of the images that the bundle was made with.
SEED = 11


class Kind(str, Enum):
    """What computes: a board that is played, or this machine itself."""

    PLAYED = "played"
    COMPUTING = "computing"


# Stages of some 2 ms are stretched twelvefold when played: cold caches cost little beside that, and less so
# the smaller the network is. A quota is accounted in ticks of 4 ms: stages must last several of those, some
# 13 ms here, before their time is the share's and not a matter of luck.
NETWORKS: dict[Kind, FittedName] = {Kind.PLAYED: "vit-tiny", Kind.COMPUTING: "vit-small"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A bundle and its images; `target_ms`, what all stages take on the board that is played, None for none.

    `truth` holds the class number of every image, by its path in `images`.
    """

    name: str
    kind: Kind
    bundle: Bundle
    images: Path
    truth: Truth
    target_ms: float | None
    about: str


def subject_of(kind: Kind, work: Path) -> Subject:
    """The subject of a kind; its images are written below `work`. Raises: BundleError, RunnerError."""
    bundle = open_bundle(fitted_bundle(NETWORKS[kind]))
    target_ms = PLAYED_FULL_MS if kind is Kind.PLAYED else None
    speed = "at the speed of this machine" if target_ms is None else f"slowed down to {target_ms:g} ms in all"
    about = f"{bundle.manifest.provenance.network}, random weights; {speed}"
    images = work / f"images-{kind.value}"
    return Subject(kind.value, kind, bundle, images, _write_images(bundle, images), target_ms, about)


def _write_images(bundle: Bundle, out: Path) -> Truth:
    """Write images, and what the network's last exit says to them."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    runner, _ = open_verified(bundle)
    manifest = bundle.manifest
    truth: Truth = {}
    for index, pixels in enumerate(random_images(IMAGES, SEED, manifest.preprocessing.width)):
        name = f"{index:03d}.bmp"
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0))  # (3, S, S) -> (S, S, 3)
        Image.fromarray(image).save(out / name)
        tensors: Tensors = input_tensors(image, manifest.preprocessing, manifest.boundaries[0].tensors[0])
        for stage in range(manifest.stage_count):
            done = runner.run(stage, tensors)
            tensors = done.boundary
        truth[name] = float(score_logits(done.output.reshape(-1), 1.0)[0])
    runner.close()
    return truth
