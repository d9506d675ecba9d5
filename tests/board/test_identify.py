from pathlib import Path

import pytest

from edgeexit.board.identify import board_model, identify

TREES = Path(__file__).with_name("trees")


@pytest.mark.parametrize("name", ["raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano"])
def test_a_board_is_recognised_by_what_its_firmware_says(name: str) -> None:
    assert identify(TREES / name).name == name


def test_the_model_is_read_without_its_closing_zero_byte() -> None:
    assert board_model(TREES / "raspberry-pi-5") == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_machine_without_a_model_is_generic(tmp_path: Path) -> None:
    assert identify(tmp_path).name == "generic-linux"


def test_a_board_that_nobody_described_is_generic(tmp_path: Path) -> None:
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"Orange Pi 5\0")
    assert identify(tmp_path).name == "generic-linux"


def test_a_jetson_without_its_vendor_system_is_generic(tmp_path: Path) -> None:
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert identify(tmp_path).name == "generic-linux"
