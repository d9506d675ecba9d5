"""What a user of the wheel gets: built here, installed with the device extra into an empty environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny_bundle"
STRIPES = ROOT / "examples" / "stripes.png"
# What setup.py reads to build.
SOURCES = ("edgeexit", "devices", "setup.py", "pyproject.toml", "README.md")

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.litert, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment that holds the wheel and what a device needs, and nothing else."""

    wheel: Path
    checkout: Path
    environment: Path
    elsewhere: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, far from the checkout."""
        program, *arguments = words
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [str(self.environment / "bin" / program), *arguments],
            cwd=self.elsewhere,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
        )

    def python(self, code: str) -> str:
        """What a piece of Python prints there."""
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _done(*words: str) -> None:
    """Run this Python so; what it said is shown only where it failed."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    checkout, built, environment = folder / "checkout", folder / "built", folder / "environment"
    checkout.mkdir()
    for name in SOURCES:  # a copy: building writes beside its sources
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / name)
    pip = ("-m", "pip", "--disable-pip-version-check")
    plain = ("--no-deps", "--no-build-isolation")
    _done(*pip, "wheel", *plain, "--wheel-dir", str(built), str(checkout))
    (wheel,) = built.glob("*.whl")
    _done("-m", "venv", "--without-pip", str(environment))
    into = ("--python", str(environment / "bin" / "python"), "install")
    _done(*pip, *into, "--constraint", str(ROOT / "constraints.txt"), f"{wheel}[device]")
    return Installed(wheel, checkout, environment, folder)


def test_the_wheel_holds_the_package_and_the_boards_and_nothing_else(installed: Installed) -> None:
    held = {name for name in zipfile.ZipFile(installed.wheel).namelist() if ".dist-info/" not in name}
    files = [path.relative_to(installed.checkout) for path in installed.checkout.rglob("*") if path.is_file()]
    wanted = {
        path.as_posix()
        for path in files
        if path.parts[0] == "edgeexit" and (path.suffix == ".py" or path.name == "py.typed")
    }
    wanted |= {f"edgeexit/{path.as_posix()}" for path in files if path.parts[0] == "devices"}
    wanted |= {
        path.as_posix()
        for path in files
        if path.parts[0] == "edgeexit" and path.parent.name == "requirements"
    }
    assert sum(name.endswith(".txt") for name in wanted) == 2  # of the second back end's two lines
    assert held == wanted


def test_no_training_or_converting_library_comes_along(installed: Installed) -> None:
    names = ("torch", "tensorflow", "jax", "onnx", "litert_torch", "sklearn", "matplotlib", "asyncssh")
    found = installed.python(
        f"from importlib.util import find_spec; print(*(n for n in {names} if find_spec(n)))"
    )
    assert found == ""


def test_importing_loads_nothing_heavy(installed: Installed) -> None:
    loaded = installed.python(
        "import sys; before = set(sys.modules); import edgeexit;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    assert set(loaded) <= {"edgeexit", "numpy"} | set(sys.stdlib_module_names)


def test_the_type_marker_and_the_boards_are_found(installed: Installed) -> None:
    marker = "from importlib.resources import files; print((files('edgeexit') / 'py.typed').is_file())"
    assert installed.python(marker) == "True"
    names = installed.python("from edgeexit.board.files import board_names; print(*board_names())").split()
    assert names == sorted(path.stem for path in (ROOT / "devices" / "profiles").glob("*.toml"))
    for file in ("systemd/edgeexit-device.service", "provision/device.toml", "provision/board-setup.sh"):
        held = installed.python(
            f"from edgeexit.board.files import board_file; print(len(board_file({file!r}).read_bytes()))"
        )
        assert int(held) == (ROOT / "devices" / file).stat().st_size


def test_the_shipped_commands_work_there(installed: Installed) -> None:
    inspected = installed.run("edgeexit", "inspect", str(TINY), "--json")
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)["manifest"]["name"] == "tiny-stripes"
    answered = installed.run("edgeexit", "run", str(TINY), str(STRIPES), "--json", "--budget-ms", "20000")
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["place"] == "device"


def test_flash_finds_the_unit_in_the_wheel(installed: Installed) -> None:
    done = installed.run("edgeexit", "flash", "--root", "board", str(TINY))
    assert done.returncode == 0, done.stderr
    unit = next((installed.elsewhere / "board").rglob("edgeexit-device.service"))
    assert unit.read_bytes() == (ROOT / "devices" / "systemd" / "edgeexit-device.service").read_bytes()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("convert", "weights.safetensors", "--data", "images", "--out", "b"), "convert"),
        (("flash", "pi@board", str(TINY)), "deploy"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    installed: Installed, words: tuple[str, ...], extra: str
) -> None:
    done = installed.run("edgeexit", *words)
    assert done.returncode == 2
    assert f"pip install 'edgeexit[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
