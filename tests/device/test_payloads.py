"""What a device finds out of ways to send, once for each bundle: the next start believes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeexit.bundle import Bundle
from edgeexit.device.config import DeviceConfig, SourceConfig
from edgeexit.device.parts import CODEC_TIMES_FILE, SELECTION_FILE, state_file
from edgeexit.device.payloads import make_payloads
from edgeexit.runner.selection import open_verified


@pytest.mark.litert
def test_times_of_codecs_are_the_same_after_a_restart(packed_bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "state" / CODEC_TIMES_FILE
    runner, _ = open_verified(packed_bundle)
    first = make_payloads(packed_bundle, runner, threads=1, cache=cache)
    again = make_payloads(packed_bundle, runner, threads=1, cache=cache)
    assert first.encode_ms.keys() >= {(0, "raw"), (1, "bottleneck8"), (1, "pool4-int8")}
    # No two measurements are alike to the last bit: what is equal is remembered.
    assert again.encode_ms == first.encode_ms
    assert again.packing.codecs == first.packing.codecs


def test_measurements_lie_in_the_state_folder(tmp_path: Path) -> None:
    source = SourceConfig(kind="directory", path=str(tmp_path))
    config = DeviceConfig(source=source, state=str(tmp_path))
    assert state_file(config, {}, SELECTION_FILE) == tmp_path / "selection.json"
    unset = DeviceConfig(source=source)
    given = {"STATE_DIRECTORY": f"{tmp_path}:/elsewhere"}
    assert state_file(unset, given, CODEC_TIMES_FILE) == tmp_path / "codec_times.json"
    assert state_file(unset, {}, CODEC_TIMES_FILE) is None
