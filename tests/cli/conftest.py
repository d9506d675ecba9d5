"""The command line as a user meets it: within this process where that is enough, else as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edgeexit.bundle import Bundle
from edgeexit.cli.main import build

WORDS = [sys.executable, "-c", "from edgeexit.cli.main import main; main()"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def complains(self, code: int, *words: str) -> None:
        """Assert that it failed in sentences that hold these words, and printed nothing else."""
        assert self.code == code, self
        assert self.out == "", self
        assert self.err.startswith("error: "), self
        assert "Traceback" not in self.err
        assert "\n  why: " in self.err, self
        assert "\n  fix: " in self.err, self
        for word in words:
            assert word in self.err, self


Say = Callable[..., Said]


@pytest.fixture
def say() -> Say:
    """Runs `edgeexit WORDS` within this process."""
    app = build()

    def run(*words: object) -> Said:
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        return Said(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts `edgeexit WORDS` as a process whose output can be read."""

    def run(*words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*WORDS, *(str(word) for word in words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "100"},
        )

    return run


@pytest.fixture
def labelled(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A folder of images for the tiny bundle, one folder a class; the last exit is right about them all."""
    golden = tiny_bundle.golden()
    images = golden.inputs["image"]  # (n, 1, 1, 8, 8)
    for index, (image, logits) in enumerate(zip(images, golden.outputs[-1], strict=True)):
        folder = tmp_path / "labelled" / tiny_bundle.manifest.labels[int(logits.argmax())]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image[0, 0] * 255).astype(np.uint8)).save(folder / f"{index:02d}.png")
    return tmp_path / "labelled"


@pytest.fixture
def image(labelled: Path) -> Path:
    """One image."""
    return next(labelled.glob("*/*.png"))
