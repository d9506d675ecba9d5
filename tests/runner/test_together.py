"""Stages of one interpreter answer as those of several, or there are several."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeexit.bundle import Bundle
from edgeexit.errors import RunnerError
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.runtime import Interpreter, Runtime, find_runtime
from edgeexit.runner.selection import open_verified
from edgeexit.runner.together import TOGETHER_FILE, load_together

pytestmark = pytest.mark.litert


def outputs(runner: LiteRTRunner, tensors: Tensors) -> list[NDArray[np.float32]]:
    found = []
    for stage in range(runner.stage_count):
        given = runner.run(stage, tensors)
        found.append(given.output)
        tensors = given.boundary
    return found


def assert_same(ours: list[NDArray[np.float32]], theirs: list[NDArray[np.float32]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def made_by(real: Runtime, made: list[str]) -> Runtime:
    def make(model: Path, threads: int) -> Interpreter:
        made.append(model.name)
        return real.make(model, threads)

    return Runtime(real.name, real.version, make)


@pytest.mark.parametrize("prefer", ["f32", "int8"])
def test_one_interpreter_answers_as_several_also_when_reopened(
    tiny_bundle: Bundle, tmp_path: Path, prefer: str
) -> None:
    sample = tiny_bundle.golden().sample(3)
    several, report = open_verified(tiny_bundle, prefer=prefer)
    assert not report.together
    made: list[str] = []
    runtime = made_by(find_runtime(), made)
    cache = tmp_path / "selection.json"
    for reopened in (False, True):
        made.clear()
        together, report = open_verified(tiny_bundle, prefer=prefer, cache=cache, runtime=runtime)
        assert report.together
        assert set(report.chosen) == {prefer}
        assert made.count(TOGETHER_FILE) == 1
        assert not reopened or made == [TOGETHER_FILE]
        assert_same(outputs(together, sample), outputs(several, sample))
        together.close()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("layout", ["row by row", "plane by plane"])
def test_an_image_is_written_where_the_first_stage_takes_it(
    tiny_bundle: Bundle, tmp_path: Path, *, together: bool, layout: str
) -> None:
    how, spec = tiny_bundle.manifest.preprocessing, tiny_bundle.manifest.boundaries[0].tensors[0]
    channels = () if how.color == "gray" else (3,)
    cache = tmp_path / "selection.json" if together else None
    runner, report = open_verified(tiny_bundle, prefer="f32", cache=cache)
    assert report.together == together
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (how.height, how.width, *channels), np.uint8)
        if layout == "plane by plane":
            image = np.asfortranarray(image)
        written = input_tensors(image, how, spec)
        copied = {spec.name: input_tensors(image, how, spec)[spec.name]}
        assert_same(outputs(runner, written), outputs(runner, copied))
        np.testing.assert_array_equal(written[spec.name], copied[spec.name])
    with pytest.raises(RunnerError, match="was not given"):
        runner.run(1, written)


def test_what_they_gave_is_not_changed_by_later_runs(tiny_bundle: Bundle, tmp_path: Path) -> None:
    golden = tiny_bundle.golden()
    runner, _ = open_verified(tiny_bundle, cache=tmp_path / "selection.json")
    first = runner.run(0, golden.sample(0))
    kept = first.output.copy(), {name: tensor.copy() for name, tensor in first.boundary.items()}
    outputs(runner, golden.sample(1))
    np.testing.assert_array_equal(first.output, kept[0])
    for name, tensor in kept[1].items():
        np.testing.assert_array_equal(first.boundary[name], tensor)


def test_what_they_gave_stays_though_nobody_looked_at_it_before_the_next_run(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    golden = tiny_bundle.golden()
    # Named, because which one is the fastest may be another one each time.
    runner, report = open_verified(tiny_bundle, prefer="f32", cache=tmp_path / "selection.json")
    assert report.together
    alone, _ = open_verified(tiny_bundle, prefer="f32")
    first, expected = runner.run(0, golden.sample(0)), alone.run(0, golden.sample(0))
    other = runner.run(0, golden.sample(1))
    assert set(first.boundary) == set(expected.boundary)
    for name, tensor in expected.boundary.items():
        np.testing.assert_array_equal(first.boundary[name], tensor)
        assert not np.array_equal(other.boundary[name], tensor)
    # Two frames in turns, stage after stage, as a gateway pauses one for another.
    mine, others = first.boundary, other.boundary
    for stage in range(1, runner.stage_count):
        expected = alone.run(stage, expected.boundary)
        given, others = runner.run(stage, mine), runner.run(stage, others).boundary
        mine = given.boundary
        np.testing.assert_array_equal(given.output, expected.output)
    runner.close()
    alone.close()


def test_a_damaged_file_is_written_anew(tiny_bundle: Bundle, tmp_path: Path) -> None:
    cache, sample = tmp_path / "selection.json", tiny_bundle.golden().sample(0)
    runner, _ = open_verified(tiny_bundle, prefer="f32", cache=cache)
    expected = outputs(runner, sample)
    runner.close()
    file = tmp_path / TOGETHER_FILE
    sound = file.read_bytes()
    halved, flipped = sound[: len(sound) // 2], bytearray(sound)
    flipped[-100] ^= 0xFF
    for damaged in (halved, bytes(flipped), b""):
        file.write_bytes(damaged)
        runner, report = open_verified(tiny_bundle, prefer="f32", cache=cache)
        assert report.together
        assert file.read_bytes() == sound
        assert_same(outputs(runner, sample), expected)
        runner.close()


class Inner(Protocol):
    """What an interpreter wraps; names are its own."""

    AllocateTensors: Callable[[int], object]
    SetTensor: Callable[[int, NDArray[np.generic], int], object]
    Invoke: Callable[[int], object]
    GetTensor: Callable[[int, int], NDArray[np.float32]]
    tensor: Callable[[object, int, int], NDArray[np.float32]]


class OtherInner:
    """The inside of an interpreter whose graphs give a little more than they should."""

    def __init__(self, interpreter: Interpreter) -> None:
        inner = cast("Inner", vars(interpreter)["_interpreter"])
        self.AllocateTensors = inner.AllocateTensors
        self.SetTensor = inner.SetTensor
        self.Invoke = inner.Invoke
        self.tensor = inner.tensor
        self._get = inner.GetTensor

    def GetTensor(self, tensor_index: int, subgraph_index: int) -> NDArray[np.float32]:  # noqa: N802
        return self._get(tensor_index, subgraph_index) + np.float32(1e-6)


class Outside:
    """An interpreter with another inside, or none."""

    def __init__(self, real: Interpreter, inner: OtherInner | None) -> None:
        self.get_signature_runner = real.get_signature_runner
        if inner is not None:
            self._interpreter = inner


@pytest.mark.parametrize(
    "kind", ["answers otherwise", "has no inside", "cannot be made", "cannot be written"]
)
def test_where_they_cannot_be_together_each_has_an_interpreter_of_its_own(
    tiny_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    real = find_runtime()

    def make(model: Path, threads: int) -> Interpreter:
        if model.name == TOGETHER_FILE:
            if kind == "cannot be made":
                raise ValueError("Didn't find op for builtin opcode")
            made = real.make(model, threads)
            inner = OtherInner(made) if kind == "answers otherwise" else None
            return cast("Interpreter", Outside(made, inner))
        return real.make(model, threads)

    cache = tmp_path / "selection.json"
    if kind == "cannot be written":
        (tmp_path / TOGETHER_FILE).mkdir()
    several, _ = open_verified(tiny_bundle, prefer="f32")
    sample = tiny_bundle.golden().sample(2)
    for _ in range(2):  # examined, and reopened
        with caplog.at_level(logging.INFO, logger="edgeexit.runner.together"):
            runner, report = open_verified(
                tiny_bundle, prefer="f32", cache=cache, runtime=Runtime(real.name, real.version, make)
            )
        assert not report.together
        assert not (tmp_path / TOGETHER_FILE).is_file()
        assert_same(outputs(runner, sample), outputs(several, sample))
        runner.close()
    assert sum("interpreter of its own" in each.message for each in caplog.records) == 1


def test_stages_of_another_bundle_are_not_believed(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / TOGETHER_FILE
    variants = [stage.variants[0] for stage in tiny_bundle.manifest.stages]
    path.write_bytes(b"TFL3 of somebody else")
    loaded = load_together(tiny_bundle, variants, path, runtime=find_runtime(), threads=1)
    assert [each.variant for each in loaded] == variants
    with pytest.raises(RunnerError, match="cannot be put together"):
        load_together(tiny_bundle, variants[::-1], path, runtime=find_runtime(), threads=1)
