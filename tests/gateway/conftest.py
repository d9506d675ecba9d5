"""Parts for the gateway's tests: invented time, a runner that spends it, and copies of the tiny bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgeexit.bundle import Bundle, digest_of, encode_manifest, open_bundle
from edgeexit.errors import RunnerError
from edgeexit.runner.protocol import StageOutput, Tensors


class InventedTime:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_ms = 1000.0

    def __call__(self) -> float:
        return self.now_ms


class SpendingRunner:
    """A runner whose stages take invented time; its answer at exit k is k at every class."""

    def __init__(self, bundle: Bundle, time: InventedTime, stage_ms: list[float]) -> None:
        self._bundle = bundle
        self._time = time
        self.stage_ms = stage_ms
        self.fail_at: int | None = None
        self.ran: list[int] = []
        self.closed = False

    @property
    def stage_count(self) -> int:
        return self._bundle.manifest.stage_count

    def variant(self, stage: int) -> str:
        return self._bundle.manifest.stages[stage].variants[0].name

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        assert not self.closed
        if self.fail_at == stage:
            raise RunnerError("stage failed", stage=stage)
        manifest = self._bundle.manifest
        assert set(tensors) == {spec.name for spec in manifest.boundaries[stage].tensors}
        self.ran.append(stage)
        self._time.now_ms += self.stage_ms[stage]
        last = stage == self.stage_count - 1
        specs = () if last else manifest.boundaries[stage + 1].tensors
        boundary = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs}
        classes = manifest.exits[stage].output.shape[1]
        return StageOutput(boundary, np.full(classes, stage, dtype=np.float32))  # (C,)

    def close(self) -> None:
        self.closed = True


MakeRunner = Callable[[], SpendingRunner]
CopyBundle = Callable[[Path, int], Bundle]


@pytest.fixture
def time() -> InventedTime:
    return InventedTime()


@pytest.fixture
def make_runner(tiny_bundle: Bundle, time: InventedTime) -> MakeRunner:
    def make() -> SpendingRunner:
        return SpendingRunner(tiny_bundle, time, [2.0, 4.0, 8.0])

    return make


@pytest.fixture
def copy_bundle(tiny_bundle: Bundle) -> CopyBundle:
    """Copies the tiny bundle under another serial, so that its digest is another one."""

    def copy(to: Path, serial: int) -> Bundle:
        shutil.copytree(tiny_bundle.path, to)
        manifest = msgspec.structs.replace(open_bundle(to).manifest, serial=serial)
        data = encode_manifest(manifest)
        (to / "manifest.json").write_bytes(data)
        (to / "manifest.json.sha256").write_text(f"{digest_of(manifest)}  manifest.json\n", encoding="ascii")
        return open_bundle(to)

    return copy
