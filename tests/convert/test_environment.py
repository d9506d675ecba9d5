"""Environments of their own: found again, never half made, named by what is in them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgeexit.convert import environment
from edgeexit.convert.child import LAST_LINES, run_child
from edgeexit.convert.environment import (
    Interpreter,
    ToolEnvironment,
    cache_folder,
    find_interpreter,
    require_interpreter,
    requirements,
)
from edgeexit.errors import MissingProgram, ToolError

HERE = Interpreter(Path(sys.executable), sys.version_info[:3])


def empty(name: str = "nothing") -> ToolEnvironment:
    """An environment that needs no package, and so no registry."""
    return ToolEnvironment(name, "# none\n", HERE)


def test_an_environment_is_made_once_and_found_again(tmp_path: Path) -> None:
    told: list[str] = []
    python = empty().python(tmp_path, told.append)
    assert subprocess.check_output([str(python), "-c", "print(40 + 2)"], text=True) == "42\n"
    assert any("installing nothing" in line for line in told)
    before = python.stat().st_mtime_ns, len(told)
    assert empty().python(tmp_path, told.append) == python
    assert (python.stat().st_mtime_ns, len(told)) == before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".lock"]


def test_other_requirements_or_another_interpreter_are_another_environment(tmp_path: Path) -> None:
    first = empty()
    assert first.place(tmp_path) == empty().place(tmp_path)
    assert first.place(tmp_path) != replace(first, requirements="# other\n").place(tmp_path)
    later = Interpreter(HERE.path, (3, 99, 0))
    assert first.place(tmp_path) != replace(first, interpreter=later).place(tmp_path)


def test_what_cannot_be_installed_leaves_nothing_behind(tmp_path: Path) -> None:
    wanted = replace(empty(), requirements=f"{tmp_path / 'no-such.whl'}\n")
    with pytest.raises(ToolError, match="cannot be installed") as caught:
        wanted.python(tmp_path / "cache")
    assert "no-such" in str(caught.value)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_what_a_killed_creation_left_is_made_anew(tmp_path: Path) -> None:
    wanted = empty()
    half = wanted.place(tmp_path).with_name(f"{wanted.place(tmp_path).name}.part")
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").write_text("half")
    python = wanted.python(tmp_path)
    assert python.read_bytes() != b"half"
    assert not half.exists()


def test_two_that_need_it_at_once_make_it_once(tmp_path: Path) -> None:
    told: list[str] = []
    threads = [threading.Thread(target=empty().python, args=(tmp_path, told.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("installing" in line for line in told) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ToolError, match="cannot be installed"):
        empty().python(tmp_path / "file" / "cache")


def test_the_cache_is_where_it_is_asked_for(tmp_path: Path) -> None:
    assert cache_folder({"EDGEEXIT_CACHE": "/var/cache/x"}) == Path("/var/cache/x/environments")
    assert cache_folder({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/edgeexit/environments")
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache/edgeexit/environments"


def test_shims_with_nothing_behind_them_are_passed_over(tmp_path: Path) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    for folder, script in (("shims", "exit 127"), ("real", f'exec "{sys.executable}" "$@"')):
        (tmp_path / folder).mkdir()
        command = tmp_path / folder / "python3.99"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        command.with_name(f"python{version}").symlink_to(command)
    variables = {"PATH": f"{tmp_path / 'shims'}:{tmp_path / 'real'}", "PYENV_ROOT": str(tmp_path)}
    least = sys.version_info[:2]
    found = find_interpreter(least, (3, 99), environment=variables)
    assert found is not None
    assert found.version == sys.version_info[:3]  # python3.99 is on the path, and is something else
    assert find_interpreter((3, 98), (3, 99), environment=variables) is None


def test_a_missing_interpreter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_interpreter", lambda *_: None)
    with pytest.raises(MissingProgram, match=r"python3\.11 is not installed"):
        require_interpreter((3, 11), (3, 11), needed_for="onnx2tf")


@pytest.mark.parametrize("file", ["onnx2tf-python3.11.txt", "onnx2tf-python3.12.txt"])
def test_every_requirement_is_exact(file: str) -> None:
    lines = [line for line in requirements(file).splitlines() if line and not line.startswith("#")]
    assert lines
    assert all(line.count("==") == 1 and not set("<>~* ") & set(line) for line in lines)
    assert len({line.partition("==")[0].lower() for line in lines}) == len(lines)


def test_a_child_that_hangs_is_ended_with_all_that_it_started() -> None:
    script = "sleep 60 & echo $!; wait"
    told: list[str] = []
    done = run_child(["sh", "-c", script], limit_s=1.0, tell=told.append)
    assert done.why == "it took longer than 1 s"
    child = Path(f"/proc/{told[0]}/stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_childs_last_words_explain_its_failure() -> None:
    script = "import sys; print('\\r'.join(map(str, range(99)))); sys.exit('no such operator')"
    done = run_child([sys.executable, "-c", script], limit_s=60.0, environment=dict(os.environ))
    assert done.why == "it ended with 1"
    words = done.last_words.splitlines()
    assert words[-1] == "no such operator"
    assert len(words) == LAST_LINES
    assert run_child(["true"], limit_s=60.0).why is None
