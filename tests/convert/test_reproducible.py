"""The same conversion in another process gives the same bundle, to the last byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec import UNSET

from edgeexit.bundle import open_bundle

if TYPE_CHECKING:
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert, pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

# What the shared conversion did, by the same inputs; the lowering is done anew.
AGAIN = """
import sys
from pathlib import Path
import torch
from edgeexit.convert.conversion import convert
from tests.convert.conftest import make_network, make_plan, tiny_set

torch.set_num_threads(1)
convert(
    make_network(),
    make_plan(),
    calibration=tiny_set(256, 1),
    test=None,
    out=Path(sys.argv[1]),
)
"""


def test_another_process_with_other_hashes_at_another_place_gives_the_same_digest(
    converted: Converted, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "another"
    # Sets and dicts of strings come in another order under another seed.
    environment = os.environ | {"PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(out)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = open_bundle(converted.out), open_bundle(out)
    assert second.manifest == first.manifest
    assert second.digest == first.digest
    for file in first.files():
        assert (second.path / file).read_bytes() == (first.path / file).read_bytes()


def test_no_date_enters_the_digest(converted: Converted) -> None:
    assert open_bundle(converted.out).manifest.created is UNSET
    assert converted.report.created is not None
