"""Every error that a user meets says what, why and how to fix it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import edgeexit
from edgeexit import errors
from edgeexit.cli.advice import way_out
from edgeexit.errors import BundleError, ConfigError, DataError, EdgeExitError, RunnerError, TraceError

if TYPE_CHECKING:
    from edgeexit.bundle import Bundle
    from tests.cli.conftest import Say

# These make their own sentences of what they are told.
_SPEAK_FOR_THEMSELVES = {"MissingExtra", "MissingProgram", "IntegrityError", "MissingFile", "VariantRejected"}
_SPEAK_FOR_THEMSELVES |= {"UnsupportedModel", "CannotCut", "ParityError"}


def _raised_by_commands() -> list[tuple[str, ast.Call]]:
    commands = Path(edgeexit.__file__).parent / "cli"
    return [
        (f"{file.relative_to(commands)}:{node.lineno}", node)
        for file in sorted(commands.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and isinstance(getattr(errors, node.func.id, None), type)
        and node.func.id not in _SPEAK_FOR_THEMSELVES
    ]


def test_what_commands_raise_says_why_and_how_to_fix_it() -> None:
    raised = _raised_by_commands()
    assert len(raised) > 80
    # The one error without a way out of its own is what the system refused: its number gives it.
    silent = [
        place
        for place, call in raised
        if {"why", "fix"} - {word.arg for word in call.keywords} and not place.startswith("present.py")
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("x", key="k", fix="do that"), "do that"),
        (TraceError("x", file=__file__, line=3), f"line 3 of {__file__}"),
        (TraceError("x", file=__file__), f"correct {__file__}"),
        (TraceError("x", file="no/such"), "name a folder of traces"),
        (BundleError("x", file="f"), "copy the bundle again"),
        (RunnerError("x", stage=1), "bench --on"),
        (DataError("x", file="f.png"), "correct f.png, or give another"),
        (ConfigError("x", file="device.toml", key="budget.path"), "change budget.path in device.toml"),
        (ConfigError("x", key="audit-fraction"), "change audit-fraction"),
        (ConfigError("x", file="device.toml"), "correct device.toml"),
    ],
)
def test_an_error_has_a_way_out(error: EdgeExitError, said: str) -> None:
    assert said in (way_out(error) or "")


def test_an_error_of_nothing_known_makes_nothing_up() -> None:
    assert way_out(EdgeExitError("x")) is None


def test_what_the_system_refuses_is_told_by_its_number(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none" / "x", "typing error"), (tmp_path, "this is a folder")):
        error = DataError("x", file="x")
        with pytest.raises((FileNotFoundError, IsADirectoryError)) as refused:
            path.read_bytes()
        error.__cause__ = refused.value
        assert said in (way_out(error) or "")


def test_a_path_that_cannot_be_used_is_told_with_a_way_out(say: Say, tmp_path: Path) -> None:
    words = ("--devices", 2, "--frames-per-s", 2, "--offload-fraction", 0.2, "--target-p99-ms", 30)
    (tmp_path / "file").write_text("no result\nno result\n")
    say("plan", *words, "--results", tmp_path / "file").complains(2, "file:1", f"correct {tmp_path / 'file'}")
    say("plan", *words, "--results", tmp_path / "none").complains(2, "typing error in the path")
    say("keys", "show", tmp_path / "none.pub").complains(2, "cannot be read", "typing error in the path")


@pytest.mark.litert
def test_images_that_are_none_or_in_foreign_folders_are_told_in_words(
    say: Say, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "note.png").write_text("no image")
    said = say("run", tiny_bundle.path, tmp_path / "note.png")
    assert said.code == 2
    assert "it is no image" in said.err
    assert " at 0x" not in said.err
    assert "fix: give an image as JPEG" in said.err
    (tmp_path / "all" / "giraffe").mkdir(parents=True)
    said = say("record", tiny_bundle.path, tmp_path / "all", "--out", tmp_path / "out")
    assert said.code == 2
    assert "its folders (giraffe) have none of the network's labels" in said.err
