"""What every command has in common: help, versions, mistakes, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from typer.testing import CliRunner

import edgeexit
from edgeexit.cli.main import build, main
from edgeexit.cli.present import command, exit_code, show_error
from edgeexit.errors import (
    BrokerError,
    BundleError,
    ConfigError,
    ConvertError,
    DeployError,
    EdgeExitError,
    MissingFile,
    TraceError,
    UnsupportedModel,
)

if TYPE_CHECKING:
    from tests.cli.conftest import Say

Start = Callable[..., subprocess.Popen[str]]
VERBS = sorted(each.name or "" for each in build().registered_commands)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_verb_says_what_it_does(say: Say, verb: str, flag: str) -> None:
    said = say(verb, flag)
    assert said.code == 0
    assert "Usage:" in said.out
    assert verb in said.out
    assert said.err == ""


def commands(root: object, *names: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command below this one, with the words that call it."""
    yield names, root
    for name, each in getattr(root, "commands", {}).items():
        yield from commands(each, *names, name)


@pytest.mark.parametrize(
    ("words", "each"),
    list(commands(typer.main.get_command(build()))),
    ids=lambda each: "-".join(each) if isinstance(each, tuple) else "",
)
def test_help_says_all_that_was_written_for_it(words: tuple[str, ...], each: object) -> None:
    # Square brackets would be taken for markup, and be gone.
    shown = "".join(CliRunner(env={"COLUMNS": "1000"}).invoke(build(), [*words, "--help"]).output.split())
    for parameter in vars(each)["params"]:
        written = getattr(parameter, "help", None)
        if written and not getattr(parameter, "hidden", False):
            assert "".join(written.split()) in shown, (words, parameter.name)


def test_the_root_lists_all_verbs(say: Say) -> None:
    said = say("--help")
    assert said.code == 0
    assert all(verb in said.out for verb in VERBS)


def test_version(say: Say) -> None:
    assert say("--version").out == f"edgeexit {edgeexit.__version__}\n"


def test_a_mistyped_verb_is_guessed(say: Say) -> None:
    said = say("inspekt", "x")
    assert said.code == 2
    assert "inspect" in said.err


@pytest.mark.parametrize(
    "words",
    [["run"], ["run", "a", "b", "--budget-ms", "soon"], ["inspect", "a", "b"], ["flash", "--rot", "x"]],
)
def test_wrong_usage_ends_with_two_and_no_traceback(say: Say, words: list[str]) -> None:
    said = say(*words)
    assert said.code == 2
    assert "Usage:" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MissingFile(file="x"), 4),
        (BundleError("x", file="x"), 4),
        (BrokerError("x", host="h", port=1), 3),
        (DeployError("x", host="h"), 3),
        (ConfigError("x"), 2),
        (TraceError("x", file="x"), 2),
        (UnsupportedModel("x", expected="y"), 2),
        (ConvertError("x"), 1),
        (EdgeExitError("x"), 1),
    ],
)
def test_exit_codes_tell_errors_apart(error: EdgeExitError, code: int) -> None:
    assert exit_code(error) == code


def test_errors_say_what_why_and_how_to_fix_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(EdgeExitError("it broke", why="it was old", fix="buy a new one"), as_json=False)
    assert capsys.readouterr().err == "error: it broke\n  why: it was old\n  fix: buy a new one\n"


def failing_with(error: BaseException) -> typer.Typer:
    """A command line of one command, which fails so."""

    @command
    def fail() -> None:
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(fail)
    return app


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ModuleNotFoundError("no torch", name="torch"), 2, "pip install 'edgeexit[convert]'"),
        (
            ModuleNotFoundError("no sub", name="ai_edge_litert.interpreter"),
            2,
            "pip install 'edgeexit[device]'",
        ),
        (PermissionError(13, "Permission denied", "/etc/x"), 2, "/etc/x cannot be used"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_of_the_system_end_in_sentences(error: BaseException, code: int, said: str) -> None:
    done = CliRunner().invoke(failing_with(error), [], catch_exceptions=False)
    assert done.exit_code == code
    assert said in done.stderr


def test_a_fault_of_ours_is_not_hidden() -> None:
    app = failing_with(ModuleNotFoundError("no such module", name="edgeexit.nowhere"))
    with pytest.raises(ModuleNotFoundError):
        CliRunner().invoke(app, [], catch_exceptions=False)


@pytest.mark.process
def test_a_reader_that_leaves_is_no_error(start: Start) -> None:
    tiny = Path(__file__).parents[1] / "data" / "tiny_bundle"
    process = start("inspect", tiny)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # as `edgeexit inspect … | head -0`
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


@pytest.mark.process
def test_ctrl_c_ends_in_one_line(tmp_path: Path) -> None:
    # A benchmark that waits for ever stands for any long command; it tells when it has begun.
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "waits.py").write_text("import time; print('begun', flush=True); time.sleep(600)\n")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from edgeexit.cli.main import main; main()",
            "bench",
            "--folder",
            str(folder),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"


def test_an_interrupt_before_any_command_ends_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeexit.cli.main.build", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.process
def test_bench_runs_what_is_there_and_fails_when_one_does(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "good.py").write_text("print('{}')\n")
    (folder / "results.py").write_text("raise SystemExit('shared, never run')\n")
    (folder / "_parts.py").write_text("raise SystemExit('shared, never run')\n")
    (folder / "grand").mkdir()
    (folder / "grand" / "__main__.py").write_text("print('{}')\n")
    assert say("bench", "--folder", folder).code == 0
    (folder / "bad.py").write_text("raise SystemExit(3)\n")
    said = say("bench", "--folder", folder)
    assert said.code == 1
    assert "failed: bad" in said.err
    say("bench", "--folder", folder, "godo").complains(2, "no benchmark 'godo'", "bad, good, grand")
    say("bench", "--folder", tmp_path).complains(2, "no benchmarks")
