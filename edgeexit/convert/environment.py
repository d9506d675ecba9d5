"""Virtual environments for tools whose pins cannot meet this package's: made once, on demand, and kept.

An environment lies in a cache folder named by the digest of its requirements and its interpreter, so that a
changed requirement makes another one. It is made beside its place, under a lock, and renamed into it when it
is whole: a creation that is killed leaves nothing that would be taken for one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgeexit.convert.child import run_child
from edgeexit.errors import MissingProgram, ToolError

CACHE_VARIABLE = "EDGEEXIT_CACHE"
"""Where environments go instead of the user's cache folder."""

# The largest one is 1.3 GB to download and unpack; a slow line takes minutes. What takes longer hangs.
INSTALL_S = 1800.0
# 48 bits of the digest: no two sets of requirements of this project meet.
_DIGITS = 12
# An interpreter that does not answer at once is a shim with nothing behind it.
_PROBE_S = 20.0
_PROBE = "import sys, venv; print(*sys.version_info[:3], sep='.'); print(sys.base_prefix)"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine, and its version: 3, 12, 1."""

    path: Path
    version: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ToolEnvironment:
    """What a tool needs, and the interpreter it needs it for.

    `requirements` is a text in pip's own format; every package is pinned, dependencies too, and none but
    these are installed.
    """

    name: str
    requirements: str
    interpreter: Interpreter

    def place(self, cache: Path) -> Path:
        """Where it lies, or will."""
        version = ".".join(map(str, self.interpreter.version))
        digest = hashlib.sha256(f"{version}\n{self.requirements}".encode()).hexdigest()
        return cache / f"{self.name}-{digest[:_DIGITS]}"

    def python(self, cache: Path, tell: Callable[[str], None] = lambda line: None) -> Path:
        """Its interpreter; the environment is made where it is not there yet, which takes minutes.

        Raises: ToolError.
        """
        place = self.place(cache)
        python = place / "bin" / "python"
        if python.exists():
            return python
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(place.with_name(f"{place.name}.lock")):
                if not python.exists():
                    tell(f"installing {self.name} into an environment of its own, once")
                    self._make(place, tell)
        except OSError as error:
            raise ToolError(f"{self.name} cannot be installed", why=str(error)) from error
        return python

    def _make(self, place: Path, tell: Callable[[str], None]) -> None:
        part = place.with_name(f"{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # of a creation that was killed
        try:
            # With a pip at hand the environment needs none of its own, nor the system's ensurepip.
            own_pip = importlib.util.find_spec("pip") is None
            create = [str(self.interpreter.path), "-m", "venv", str(part)]
            self._run(create if own_pip else [*create, "--without-pip"], tell)
            listed = part / "requirements.txt"
            listed.write_text(self.requirements, encoding="utf-8")
            python = str(part / "bin" / "python")
            pip = [python, "-m", "pip"] if own_pip else [sys.executable, "-m", "pip", "--python", python]
            quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
            # Wheels alone: what builds from source would ask for compilers, and run code that nobody pinned.
            only = ["--no-deps", "--only-binary", ":all:", "--requirement", str(listed)]
            self._run([*pip, "install", *quiet, *only], tell)
            part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _run(self, command: Sequence[str], tell: Callable[[str], None]) -> None:
        done = run_child(command, limit_s=INSTALL_S, tell=tell)
        if done.why is not None:
            raise ToolError(f"{self.name} cannot be installed", why=f"{done.why}: {done.last_words}")


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where environments are kept: `EDGEEXIT_CACHE`, else in the user's cache folder.

    Source: XDG Base Directory Specification.
    """
    variables = os.environ if environment is None else environment
    chosen = variables.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / "environments"
    base = variables.get("XDG_CACHE_HOME")
    # The specification has relative paths ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "edgeexit" / "environments"


def requirements(file: str) -> str:
    """A requirements file of this package."""
    return (files("edgeexit.convert") / "requirements" / file).read_text(encoding="utf-8")


def find_interpreter(
    least: tuple[int, int], most: tuple[int, int], *, environment: Mapping[str, str] | None = None
) -> Interpreter | None:
    """The newest Python between two versions, both included: of the search path, or of pyenv.

    Each is asked for its version: pyenv puts commands on the path that have nothing behind them.
    """
    variables = os.environ if environment is None else environment
    for minor in range(most[1], least[1] - 1, -1):
        for path in _places(f"{least[0]}.{minor}", variables):
            found = _probe(path)
            if found is not None and found.version[:2] == (least[0], minor):
                return found
    return None


def require_interpreter(least: tuple[int, int], most: tuple[int, int], *, needed_for: str) -> Interpreter:
    """The same; not finding one is an error. Raises: MissingProgram."""
    found = find_interpreter(least, most)
    if found is None:
        name = f"python{least[0]}.{least[1]}"
        raise MissingProgram(name, package=f"{name}-venv", needed_for=needed_for)
    return found


def _places(version: str, variables: Mapping[str, str]) -> Iterator[Path]:
    """Where a Python of a version may be, this very one first."""
    if version == ".".join(map(str, sys.version_info[:2])):
        yield Path(sys.executable)
    for folder in variables.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder) / f"python{version}"
        if folder and os.access(path, os.X_OK):
            yield path
    root = variables.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    yield from sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def _probe(path: Path) -> Interpreter | None:
    """The interpreter behind a path, that of no virtual environment; None where there is none."""
    try:
        asked = subprocess.run(
            [str(path), "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_S, check=True
        )
        version, prefix = asked.stdout.splitlines()[:2]
        major, minor, micro = (int(number) for number in version.split("."))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    base = Path(prefix) / "bin" / f"python{major}.{minor}"
    return Interpreter(base if base.exists() else path, (major, minor, micro))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for a lock that goes with the process that holds it."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
