"""The text format is that of Raspberry Pi's documentation of `vcgencmd get_throttled`, not of a capture."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.board.readings import Throttling
from edgeexit.board.vcgencmd import parse_throttled, read_throttled


def program(folder: Path, body: str) -> str:
    path = folder / "vcgencmd"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("throttled=0x0\n", Throttling(now=(), since_boot=())),
        (
            "throttled=0x50000\n",
            Throttling(now=(), since_boot=("under-voltage", "throttled")),
        ),
        (
            "throttled=0x50005\n",
            Throttling(now=("under-voltage", "throttled"), since_boot=("under-voltage", "throttled")),
        ),
        (
            "throttled=0xe0008\n",
            Throttling(
                now=("soft-temperature-limit",),
                since_boot=("frequency-capped", "throttled", "soft-temperature-limit"),
            ),
        ),
    ],
)
def test_flags_are_read_as_documented(text: str, expected: Throttling) -> None:
    assert parse_throttled(text) == expected


@given(flags=st.integers(min_value=0, max_value=0xFFFFF))
def test_every_documented_flag_is_told(flags: int) -> None:
    throttling = parse_throttled(f"throttled=0x{flags:x}\n")
    assert throttling is not None
    assert len(throttling.now) == (flags & 0xF).bit_count()
    assert len(throttling.since_boot) == (flags >> 16 & 0xF).bit_count()


@given(text=st.text(max_size=40))
def test_any_other_text_is_unknown(text: str) -> None:
    assert text.startswith("throttled=0x") or parse_throttled(text) is None


@pytest.mark.parametrize(
    "text", ["", "throttled=", "throttled=50000", "VCHI initialization failed", "throttled=0x0 x"]
)
def test_refusals_of_the_firmware_are_unknown(text: str) -> None:
    assert parse_throttled(text) is None


def test_the_program_is_asked(tmp_path: Path) -> None:
    asked = program(tmp_path, 'test "$1" = get_throttled && echo throttled=0x4')
    assert read_throttled(asked) == Throttling(now=("throttled",), since_boot=())


@pytest.mark.parametrize("body", ["exit 1", "printf '\\377'", "exec sleep 30"])
def test_a_program_that_fails_or_hangs_is_unknown(tmp_path: Path, body: str) -> None:
    assert read_throttled(program(tmp_path, body)) is None


def test_a_board_without_the_program_is_unknown() -> None:
    assert read_throttled("vcgencmd-that-is-not-here") is None
