"""Finished steps: found again by what they were made from, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeexit.convert.kept import KeptSteps, steps_path
from edgeexit.errors import BundleError, ConfigError, LoweringError

ANSWERS = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


class Making:
    """Counts how often it was asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.count = 0

    def __call__(self) -> bytes:
        self.count += 1
        return self.data


def stopped(out: Path, error: BaseException | None = None) -> None:
    """One finished step of a conversion that was stopped then, by Ctrl-C if nothing else."""
    stop = KeyboardInterrupt() if error is None else error

    def run() -> None:
        with KeptSteps(out, "code") as steps:
            steps.file("0-f32", ["weights"], Making(b"model"))
            steps.array("answers", ["images"], lambda: ANSWERS)
            raise stop

    with pytest.raises(type(stop)):
        run()


def test_a_step_is_made_once_and_found_by_the_next_run(tmp_path: Path) -> None:
    stopped(tmp_path / "b")
    make = Making(b"other")
    with KeptSteps(tmp_path / "b", "code") as steps:
        assert steps.kept == 2
        path = steps.file("0-f32", ["weights"], make)
        assert path.read_bytes() == b"model"
        assert steps.found == 1
    assert make.count == 0
    assert not list(tmp_path.iterdir()), "a finished conversion leaves no steps behind"


@pytest.mark.parametrize(
    ("base", "name", "parts"),
    [
        ("newer code", "0-f32", ["weights"]),
        ("code", "1-f32", ["weights"]),
        ("code", "0-f32", ["other weights"]),
        ("code", "0-f32", ["weights", "setting"]),
    ],
)
def test_a_step_of_anything_else_is_not_taken(tmp_path: Path, base: str, name: str, parts: list[str]) -> None:
    stopped(tmp_path / "b")
    with KeptSteps(tmp_path / "b", base) as steps:
        assert steps.file(name, parts, Making(b"own")).read_bytes() == b"own"
        assert (steps.kept, steps.found) == (2, 0)


def test_a_damaged_or_half_written_step_is_made_again(tmp_path: Path) -> None:
    stopped(tmp_path / "b")
    (kept,) = steps_path(tmp_path / "b").glob("0-f32.*")
    kept.write_bytes(b"modem")
    kept.with_name("0-f32.abc.def.part").write_bytes(b"mo")
    with KeptSteps(tmp_path / "b", "code") as steps:
        assert steps.file("0-f32", ["weights"], Making(b"model")).read_bytes() == b"model"
        assert steps.found == 0
        assert len(list(steps_path(tmp_path / "b").glob("0-f32.*"))) == 1


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    def never() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        raise AssertionError("it was answered again")

    stopped(tmp_path / "b")
    with KeptSteps(tmp_path / "b", "code") as steps:
        np.testing.assert_array_equal(steps.array("answers", ["images"], never), ANSWERS)


def test_a_refused_conversion_keeps_nothing(tmp_path: Path) -> None:
    stopped(tmp_path / "b", LoweringError("no such operator", stage=1))
    assert not list(tmp_path.iterdir())


def test_two_conversions_to_one_place_are_refused(tmp_path: Path) -> None:
    with KeptSteps(tmp_path / "b", "code") as steps:
        path = steps.file("0-f32", ["weights"], Making(b"model"))
        with (
            pytest.raises(ConfigError, match="another conversion is at work"),
            KeptSteps(tmp_path / "b", "x"),
        ):
            pass
        assert path.exists(), "the refused one takes nothing away"
        with KeptSteps(tmp_path / "c", "code"):
            pass


def test_drafts_of_a_killed_conversion_go_and_what_it_moved_aside_comes_back(tmp_path: Path) -> None:
    for name in (".b.abc.part", ".b.abc.part.old", ".bb.abc.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    with KeptSteps(tmp_path / "b", "code"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bb.abc.part", "b"]
    assert (tmp_path / "b" / "manifest.json").read_text() == ".b.abc.part.old"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"), KeptSteps(tmp_path / "file" / "b", "code"):
        pass
