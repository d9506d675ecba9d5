"""Samples as image files, so that a device can be fed what was evaluated."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgeexit.errors import MissingExtra
from edgeexit.training.data import Samples

# What this module writes, and therefore what it may replace.
_OWN_NAME = re.compile(r"\d{5}-\d+\.png")

# What every file shows, for those who check answers.
TRUTH_FILE = "truth.json"


def write_images(samples: Samples, directory: Path, *, count: int) -> int:
    """Write the first `count` samples as 8-bit PNG files `{index:05d}-{target}.png`; how many there are.

    `truth.json` beside them maps every name to its target.

    Files of an earlier call are replaced; any other file in the directory stays.

    Shapes: images (N, 1, H, W) become grey files, (N, 3, H, W) colour ones.
    Raises: MissingExtra, OSError.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", extra="device", needed_for="writing images") from error
    directory.mkdir(parents=True, exist_ok=True)
    chosen = samples.take(slice(0, count))
    names = [f"{index:05d}-{target}.png" for index, target in enumerate(chosen.targets)]
    for path in directory.iterdir():
        if _OWN_NAME.fullmatch(path.name) and path.name not in names:
            path.unlink()
    for name, pixels in zip(names, chosen.pixels(), strict=True):
        grey = pixels.shape[0] == 1
        Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0)).save(
            directory / name
        )  # C H W -> H W (C)
    truth = {name: int(target) for name, target in zip(names, chosen.targets, strict=True)}
    (directory / TRUTH_FILE).write_text(json.dumps(truth, indent=0) + "\n", encoding="utf-8")
    return len(names)
