"""The house keeps its floors: arrows point downwards, devices import nothing heavy, names stay plain."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "edgeexit"

FLOORS = {
    "errors": 0,
    "nouns": 0,
    "bundle": 1,
    "decide": 2,
    "runner": 3,
    "transport": 3,
    "board": 3,
    "engine": 4,
    "replay": 4,
    "device": 5,
    "gateway": 5,
    "deploy": 5,
    "cli": 6,
}
WORKSTATION = {"models", "training", "convert"}
# What the workstation rooms may stand on.
WORKSTATION_CEILING = 3
DEVICE_ROOMS = ("bundle", "decide", "runner", "transport", "board", "engine", "device", "gateway")
HEAVY = ("torch", "tensorflow", "jax", "onnx", "litert_torch", "ai_edge_quantizer", "matplotlib", "timm")
REFUSED_WORDS = ("helper", "manager", "util", "utils", "misc", "common")

# Each foreign library is met in one place, where its exceptions are translated.
ONE_PLACE = {
    "paho": {"transport/mqtt_client.py", "transport/mqtt_quick_client.py"},
    "psutil": {"board/host.py"},
    "asyncssh": {"deploy/ssh.py"},
    "cryptography": {"bundle/ed25519.py"},
    "cv2": {"device/video.py"},
    "iotcore": {"transport/broker.py"},
    "litert_torch": {"convert/lowering.py"},
    "ai_edge_quantizer": {"convert/quantise.py"},
    "timm": {"models/timm_models.py"},
    "transformers": {"models/hugging_face_models.py"},
    "torchvision": {"models/torchvision_operators.py", "training/augmenting.py"},
    "tensorboard": {"training/logs.py"},
}


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def may_import(room: str, other: str) -> bool:
    if room == other or room == "__init__":
        return True
    if room == "cli":
        return True
    if room in WORKSTATION:
        return other in WORKSTATION or FLOORS[other] <= WORKSTATION_CEILING
    return other not in WORKSTATION and FLOORS[other] < FLOORS[room]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_downwards(path: Path) -> None:
    room = room_of(path)
    for module in imports(path):
        if module.startswith("edgeexit."):
            other = module.split(".")[1]
            assert may_import(room, other), f"{room} must not import {module}"


@pytest.mark.parametrize("library", ONE_PLACE)
def test_each_foreign_library_is_met_in_one_place(library: str) -> None:
    places = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(module.split(".")[0] == library for module in imports(path))
    }
    assert places <= ONE_PLACE[library]


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in sources()} - {"__init__"}
    assert rooms <= set(FLOORS) | WORKSTATION


def test_decisions_are_pure() -> None:
    impure = {"time", "os", "io", "logging", "threading", "socket", "random", "pathlib", "asyncio"}
    for path in (PACKAGE / "decide").rglob("*.py"):
        found = {module.split(".")[0] for module in imports(path)} & impure
        assert not found, f"{path.name} imports {found}"


def test_names_are_plain() -> None:
    for path in sources():
        stem = path.stem.lower()
        assert not any(word in stem.split("_") for word in REFUSED_WORDS), path


def loaded_after(statement: str) -> set[str]:
    """Top-level modules loaded in a fresh interpreter once `statement` has run."""
    code = f"import sys; {statement}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_edgeexit_loads_nothing_heavy() -> None:
    loaded = loaded_after("import edgeexit")
    assert loaded.isdisjoint({*HEAVY, "msgspec", "paho", "typer", "rich", "psutil", "PIL"})


def test_device_rooms_load_nothing_heavy() -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sources()
        if room_of(path) in DEVICE_ROOMS
    ]
    loaded = loaded_after("import " + ", ".join(modules))
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_command_line_starts_without_the_heavy_parts() -> None:
    loaded = loaded_after("import edgeexit.cli.main")
    assert loaded.isdisjoint({*HEAVY, "ai_edge_litert", "asyncssh", "paho", "cv2", "sklearn"})
