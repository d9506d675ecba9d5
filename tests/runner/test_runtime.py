"""Which runtime is taken, and what is said where none works."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from edgeexit.runner.runtime import find_runtime

# Runs in a process of its own, with packages hidden or made up through a folder at the front of the path.
PROBE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
import numpy
numpy.__version__ = {numpy!r}
from edgeexit.errors import EdgeExitError
from edgeexit.runner.runtime import find_runtime
try:
    found = find_runtime()
    print(found.name, found.version)
except EdgeExitError as error:
    print(type(error).__name__, error, "|", error.fix)
"""


def probe(tmp_path: Path, *, hidden: set[str], numpy: str = "1.26.4") -> str:
    ran = subprocess.run(
        [sys.executable, "-c", PROBE.format(hidden=sorted(hidden), numpy=numpy)],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PATH": ""},
    )
    return ran.stdout.strip()


def install_tflite(folder: Path, source: str) -> None:
    """A stand-in for tflite-runtime 2.14: its import, not its arithmetic, is what matters here."""
    (folder / "tflite_runtime").mkdir()
    (folder / "tflite_runtime" / "__init__.py").write_text("")
    (folder / "tflite_runtime" / "interpreter.py").write_text(source)
    info = folder / "tflite_runtime-2.14.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")


@pytest.mark.litert
def test_litert_comes_first() -> None:
    found = find_runtime()
    assert found.name == "ai-edge-litert"
    assert found.version == importlib.metadata.version("ai-edge-litert")


def test_without_any_runtime_the_fix_is_named(tmp_path: Path) -> None:
    said = probe(tmp_path, hidden={"ai_edge_litert", "tflite_runtime"})
    assert said.startswith("MissingExtra ai-edge-litert is not installed")
    assert "edgeexit[device]" in said


def test_tflite_runtime_comes_second(tmp_path: Path) -> None:
    install_tflite(tmp_path, "class Interpreter: pass\n")
    assert probe(tmp_path, hidden={"ai_edge_litert"}) == "tflite-runtime 2.14.0"


def test_tflite_runtime_beside_numpy_2_is_fenced_with_a_fix(tmp_path: Path) -> None:
    install_tflite(tmp_path, "raise SystemExit('must not be imported')\n")
    said = probe(tmp_path, hidden={"ai_edge_litert"}, numpy="2.1.0")
    assert said.startswith("RunnerError tflite-runtime 2.14.0 cannot work here: numpy 2.1.0 is installed")
    assert "numpy<2" in said


def test_a_runtime_whose_library_is_broken_says_why(tmp_path: Path) -> None:
    install_tflite(tmp_path, "raise ImportError('libusb-1.0.so.0: cannot open shared object file')\n")
    said = probe(tmp_path, hidden={"ai_edge_litert"})
    assert said.startswith("RunnerError tflite-runtime is installed but cannot be imported: libusb")
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("")
    (tmp_path / "ai_edge_litert" / "interpreter.py").write_text("import flatbuffers_that_are_not_there\n")
    said = probe(tmp_path, hidden=set())
    assert said.startswith("RunnerError ai-edge-litert is installed but cannot be imported")
