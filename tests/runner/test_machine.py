"""Measurements hold for one machine: a card in another board is another machine."""

from __future__ import annotations

import platform
from pathlib import Path

from edgeexit.runner.machine import machine_name


def board(root: Path, name: str, data: bytes) -> str:
    path = root / "proc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return machine_name(root)


def test_two_boards_of_the_same_architecture_differ(tmp_path: Path) -> None:
    four = board(tmp_path / "a", "device-tree/model", b"Raspberry Pi 4 Model B Rev 1.4\0")
    five = board(tmp_path / "b", "device-tree/model", b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert four != five
    assert four.endswith("Raspberry Pi 4 Model B Rev 1.4")


def test_a_pc_is_named_by_its_processor(tmp_path: Path) -> None:
    name = board(tmp_path, "cpuinfo", b"processor\t: 0\nmodel name\t: Fast Processor 9000\nmodel name\t: x\n")
    assert name.endswith(" Fast Processor 9000")


def test_a_system_that_says_nothing_still_has_a_name(tmp_path: Path) -> None:
    assert machine_name(tmp_path).startswith(platform.machine())


def test_bytes_that_are_no_text_are_no_error(tmp_path: Path) -> None:
    assert board(tmp_path, "device-tree/model", b"\xff\xfe" * 10_000)


def test_this_machine_keeps_its_name() -> None:
    assert machine_name() == machine_name()
