"""Installing the second back end ahead of its use: one command, one clear line where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeexit.convert import install
from edgeexit.convert.environment import Interpreter, ToolEnvironment
from edgeexit.convert.onnx2tf import Onnx2tf
from edgeexit.errors import MissingProgram

pytestmark = pytest.mark.convert


def test_it_is_made_where_it_is_looked_for_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Interpreter(Path(sys.executable), sys.version_info[:3])
    empty = ToolEnvironment("nothing", "# none\n", here)
    monkeypatch.setattr(Onnx2tf, "environment", lambda _: empty)
    monkeypatch.setenv("EDGEEXIT_CACHE", str(tmp_path))
    assert install.main() == 0
    python = Path(capsys.readouterr().out.splitlines()[-1])
    assert python.is_file()
    assert python.is_relative_to(tmp_path)


def test_what_is_missing_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: Onnx2tf) -> ToolEnvironment:
        raise MissingProgram("python3.11", package="python3.11-venv", needed_for="onnx2tf")

    monkeypatch.setattr(Onnx2tf, "environment", missing)
    assert install.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "python3.11" in said.err
