"""`edgeexit gateway` and `device`: what they refuse, and both as processes over a real broker."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeexit.bundle import Bundle
from edgeexit.device.records import RunEnded, read_records
from edgeexit.transport.broker import Broker

if TYPE_CHECKING:
    from tests.cli.conftest import Say

Start = Callable[..., subprocess.Popen[str]]


def test_gateway_says_what_is_wrong_with_its_settings(say: Say, tiny_bundle: Bundle, tmp_path: Path) -> None:
    say("gateway").complains(2, "the gateway needs store")
    say("gateway", "--store", tmp_path / "none").complains(2, "no bundle store")
    say("gateway", "--store", tiny_bundle.path, "--id", "A b").complains(2, "'A b' is not an id")
    say("gateway", "--store", tiny_bundle.path, "--broker", "ftp://x").complains(2, "not a broker")
    config = tmp_path / "gateway.toml"
    say("gateway", "--config", config).complains(2, "cannot be read")
    config.write_text('[gateway]\nstor = "x"\n')
    say("gateway", "--config", config).complains(2, "stor is no setting", "did you mean store?")


def test_device_says_what_is_wrong_with_its_settings(say: Say, tmp_path: Path) -> None:
    config = tmp_path / "device.toml"
    say("device", "--config", config).complains(2, "cannot be read")
    config.write_text("buget = 3\n")
    say("device", "--config", config).complains(2, "unknown key buget", "did you mean budget?")
    config.write_text('[source]\nkind = "directory"\npath = "x"\n')
    say("device", "--config", config, "--bundle", "nowhere").complains(4, "no bundle at nowhere")


@pytest.mark.process
@pytest.mark.litert
def test_device_answers_a_folder_and_ends(
    start: Start, tiny_bundle: Bundle, image: Path, tmp_path: Path
) -> None:
    frames, results, config = tmp_path / "frames", tmp_path / "results.jsonl", tmp_path / "device.toml"
    frames.mkdir()
    for number in range(3):
        shutil.copy(image, frames / f"{number}.png")
    config.write_text(
        f'board = "generic-linux"\n[source]\nkind = "directory"\npath = "{frames}"\n'
        f'[budget]\nlatency_ms = 5000.0\n[results]\npath = "{results}"\n'
    )
    process = start("device", "--config", config, "--bundle", tiny_bundle.path)
    _, err = process.communicate()
    assert process.returncode == 0, err
    *_, last = read_records(results)
    assert isinstance(last, RunEnded)
    assert last.answered == 3


@pytest.mark.process
@pytest.mark.litert
@pytest.mark.broker
def test_run_over_a_broker_with_and_without_a_gateway(start: Start, tiny_bundle: Bundle, image: Path) -> None:
    with Broker(kind="mosquitto") as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        words = ("run", tiny_bundle.path, image, "--broker", url, "--budget-ms", 20_000, "--json")
        alone = start(*words)
        out, err = alone.communicate()
        assert alone.returncode == 0, err
        assert "going on alone" in err
        assert json.loads(out)["link_up"] is False

        gateway = start("gateway", "--store", tiny_bundle.path, "--broker", url, "--id", "desk")
        try:
            assert gateway.stderr is not None
            while '"connected"' not in (line := gateway.stderr.readline()):
                assert line, "the gateway ended"
            served = start(*words)
            out, err = served.communicate()
            assert served.returncode == 0, err
            assert json.loads(out)["link_up"] is True
            assert "alone" not in err
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.communicate()
        assert gateway.returncode == 0


@pytest.mark.process
@pytest.mark.litert
@pytest.mark.broker
def test_a_gateway_brings_its_own_broker_and_ends_with_it(start: Start, tiny_bundle: Bundle) -> None:
    gateway = start("gateway", "--store", tiny_bundle.path, "--with-broker", "--id", "desk")
    assert gateway.stderr is not None
    lines: list[str] = []
    while not any('"connected"' in line for line in lines):
        lines.append(gateway.stderr.readline())
        assert lines[-1], lines
    assert lines[0].startswith("broker at mqtt://127.0.0.1:")
    gateway.send_signal(signal.SIGINT)
    gateway.communicate()
    assert gateway.returncode == 0
