import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgeexit.board.files import board_file
from edgeexit.device.systemd import Notifier

UNIT = "systemd/edgeexit-device.service"

# systemd calls a unit OK up to 5.0; what our sandbox reaches, with some room for newer systemd's new rows.
EXPOSURE_THRESHOLD = 25  # tenths


def listening(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(address)
    channel.settimeout(10)
    return channel


def test_states_reach_the_service_manager(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with listening(address) as manager:
        Notifier({"NOTIFY_SOCKET": address}).send("READY=1", "STATUS=two lines in one message")
        assert manager.recv(1000) == b"READY=1\nSTATUS=two lines in one message"


def test_abstract_sockets_work_too() -> None:
    name = f"edgeexit-test-{os.getpid()}"
    with listening(f"\0{name}") as manager:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send("WATCHDOG=1")
        assert manager.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_service_manager_nothing_happens(environment: dict[str, str]) -> None:
    Notifier(environment).send("READY=1")


def test_a_manager_that_does_not_read_does_not_stop_us(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with listening(address):
        notifier = Notifier({"NOTIFY_SOCKET": address})
        for _ in range(5000):
            notifier.send("STATUS=" + "x" * 1000)


@pytest.mark.parametrize(
    ("environment", "expected_ms"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15_000.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15_000.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_interval(
    environment: dict[str, str], expected_ms: float | None
) -> None:
    assert Notifier(environment).watchdog_ms == expected_ms


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The shipped unit, with a program that exists on this machine."""
    text = board_file(UNIT).read_text(encoding="utf-8")
    path = tmp_path / "edgeexit-device.service"
    path.write_text(text.replace("/opt/edgeexit/bin/python", sys.executable), encoding="utf-8")
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is part of Debian's systemd"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_the_unit_is_accepted_without_a_word(unit: Path) -> None:
    done = analyze("verify", str(unit))
    # `verify` returns 0 for keys that it does not know: any output is a failure.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_mistake_in_the_unit_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text(encoding="utf-8").replace("WatchdogSec", "WatchdogSecs"), encoding="utf-8")
    assert "WatchdogSecs" in analyze("verify", str(unit)).stderr


def test_the_unit_is_well_sandboxed(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_THRESHOLD}", str(unit))
    assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_starts_the_daemon_on_the_folders_that_flash_fills(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    assert "-m edgeexit.device --config /etc/edgeexit/config.toml" in text
    assert "StateDirectory=edgeexit" in text
    for line in ("Type=notify", "WatchdogSec=30", "Restart=on-failure", "TimeoutStopSec=10"):
        assert line in text.splitlines()
