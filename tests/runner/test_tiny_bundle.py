"""The bundle that the tests share is what its script makes, and worth testing with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeexit.bundle import Bundle, open_bundle
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.table import TableRunner

SCRIPT = Path(__file__).parent.parent / "data" / "make_tiny_bundle.py"


def test_it_stays_small(tiny_bundle: Bundle) -> None:
    assert sum((tiny_bundle.path / file).stat().st_size for file in tiny_bundle.files()) < 60_000


def test_its_exits_get_better(tiny_bundle: Bundle) -> None:
    accuracy = [exit_.accuracy_float for exit_ in tiny_bundle.manifest.exits]
    assert accuracy[0] + 0.1 < accuracy[1] < accuracy[2]


def test_its_table_answers_as_its_golden_vectors(tiny_bundle: Bundle, tiny_table: TableRunner) -> None:
    assert tiny_table.sample_count == tiny_bundle.golden().count


@pytest.mark.litert
@pytest.mark.convert
@pytest.mark.slow
def test_the_script_makes_a_bundle_like_it(tiny_bundle: Bundle, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "made")],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    made = open_bundle(tmp_path / "made")
    assert made.manifest.labels == tiny_bundle.manifest.labels
    assert made.manifest.preprocessing == tiny_bundle.manifest.preprocessing
    # Weights differ between processors, what is learnt hardly does.
    for ours, theirs in zip(made.manifest.exits, tiny_bundle.manifest.exits, strict=True):
        assert ours.accuracy_float == pytest.approx(theirs.accuracy_float, abs=0.05)
    golden = made.golden()
    with LiteRTRunner(made, dict.fromkeys(range(3), "f32")) as runner:
        tensors: Tensors = golden.sample(0)
        for k in range(3):
            given = runner.run(k, tensors)
            np.testing.assert_allclose(given.output, golden.outputs[k][0], atol=1e-4)
            tensors = given.boundary
