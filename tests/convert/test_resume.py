"""A conversion that is killed twice, in two places, goes on and gives the bundle that it would have given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeexit.bundle import open_bundle
from edgeexit.convert.conversion import convert
from edgeexit.convert.kept import steps_path
from edgeexit.convert.progress import Step
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import LoweringError

if TYPE_CHECKING:
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert, pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

# The shared conversion; with a second word it kills itself where the bundle is renamed into place.
CONVERT = """
import os, signal, sys
from pathlib import Path
import torch
from edgeexit.bundle import write
from edgeexit.convert.conversion import convert
from tests.convert.conftest import make_network, make_plan, tiny_set

torch.set_num_threads(1)
if len(sys.argv) > 2:
    write._switch = lambda draft, out: os.kill(os.getpid(), signal.SIGKILL)
convert(
    make_network(), make_plan(), calibration=tiny_set(256, 1), test=tiny_set(96, 2), out=Path(sys.argv[1]),
    progress=lambda step: print(step.name, step.detail, flush=True),
)
"""


class NotAgain:
    """A back end that refuses to do again what was done."""

    def __init__(self, tools: tuple[str, ...]) -> None:
        self.tools = tools

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        raise LoweringError("it was lowered before", stage=stage.index)


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_a_killed_conversion_goes_on_from_its_finished_steps(converted: Converted, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    with start(out) as first:
        assert first.stdout is not None
        while not (line := first.stdout.readline()).startswith("quantise int8"):
            assert line, "it ended before it could be killed"
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert not out.exists()
    assert steps_path(out).is_dir()

    with start(out, "kill in the last step") as second:
        assert second.stdout is not None
        told = second.stdout.read()
    assert second.returncode == -signal.SIGKILL
    assert "resume" in told
    assert not out.exists(), "a bundle stands whole or not at all"
    assert list(tmp_path.glob(".tiny.*.part"))

    told_now: list[Step] = []
    report = convert(
        converted.network,
        converted.plan,
        calibration=converted.calibration,
        test=converted.test,
        out=out,
        lowering=NotAgain(converted.lowering.tools),
        progress=told_now.append,
    )
    assert told_now[0].name == "resume"
    assert report.digest == open_bundle(converted.out).digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "tiny.report.json"]


def test_steps_of_other_settings_are_never_mixed_in(converted: Converted, tmp_path: Path) -> None:
    """Stopped with one plan, gone on with another: as if the first had never been."""
    out = tmp_path / "tiny"

    def convert_to(place: Path, *, parity_samples: int, stop_at: str = "") -> str:
        def stop(step: Step) -> None:
            if step.name == stop_at:
                raise KeyboardInterrupt

        return convert(
            converted.network,
            replace(converted.plan, variants=("f32", "int8-static"), parity_samples=parity_samples),
            calibration=converted.calibration,
            test=None,
            out=place,
            lowering=converted.lowering,
            progress=stop,
        ).digest

    with pytest.raises(KeyboardInterrupt):
        convert_to(out, parity_samples=2, stop_at="codecs")
    assert steps_path(out).is_dir()
    # Ranges of int8-static are those seen on the parity samples: another number, another file.
    assert convert_to(out, parity_samples=16) == convert_to(tmp_path / "fresh", parity_samples=16)
    assert not steps_path(out).exists()
