from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeexit.bundle import Bundle
from edgeexit.errors import ConfigError, DataError
from edgeexit.replay.record import LabelledImage, labelled_images, read_truth, record
from edgeexit.replay.recording import Recording, load_recording, save_recording
from edgeexit.runner.selection import open_verified
from edgeexit.runner.table import TableRunner


def clock_ms() -> float:
    return perf_counter() * 1000.0


@pytest.fixture
def table(tiny_bundle: Bundle) -> TableRunner:
    random = np.random.default_rng(7)
    outputs = [
        random.normal(size=(40, exit_.output.size)).astype(np.float32) for exit_ in tiny_bundle.manifest.exits
    ]
    return TableRunner(tiny_bundle.manifest, outputs)


def images(table: TableRunner, count: int = 40) -> list[LabelledImage]:
    return [
        LabelledImage(f"{sample}.png", table.image_of(sample), float(sample % 3)) for sample in range(count)
    ]


def test_a_recording_is_what_the_exits_said(tiny_bundle: Bundle, table: TableRunner) -> None:
    told: list[int] = []
    made = record(
        tiny_bundle,
        images(table),
        table,
        data="table",
        clock=clock_ms,
        keep_outputs=True,
        progress=told.append,
    )
    manifest = tiny_bundle.manifest
    assert told == list(range(1, 41))
    assert made.sample_count == 40
    assert made.stage_count == manifest.stage_count
    assert made.note.bundle_digest == tiny_bundle.digest
    assert len(made.note.options) == sum(len(boundary.codecs) for boundary in manifest.boundaries)
    assert made.outputs is not None
    assert (made.answers == made.outputs.argmax(axis=2)).all()
    assert (made.quality == (made.answers == made.truth[:, None])).all()
    # The table's boundaries survive every codec, so a gateway always says what the last exit says.
    assert (made.option_quality == made.quality[:, -1:]).all()
    evidence = made.evidence(3, made.tables)
    for exit_, each in enumerate(evidence):
        assert each.exit == exit_
        assert each.score == pytest.approx(float(made.scores[3, exit_]))
        assert len(each.expected_quality) == manifest.stage_count


def test_codecs_can_be_left_out(tiny_bundle: Bundle, table: TableRunner) -> None:
    made = record(tiny_bundle, images(table, 2), table, data="table", clock=clock_ms, codecs=("raw",))
    assert {option.codec for option in made.note.options} == {"raw"}


def test_no_sample_or_no_scale_is_told(tiny_bundle: Bundle, table: TableRunner) -> None:
    with pytest.raises(DataError):
        record(tiny_bundle, [], table, data="nothing", clock=clock_ms)
    from msgspec.structs import replace as changed

    regression = replace(tiny_bundle, manifest=changed(tiny_bundle.manifest, task="regression"))
    with pytest.raises(ConfigError):
        record(regression, images(table, 1), table, data="table", clock=clock_ms)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path, recording: Recording) -> None:
    path = tmp_path / "deep" / "a.recording"
    save_recording(recording, path)
    again = load_recording(path)
    assert again.note == recording.note
    assert again.sources == recording.sources
    for name in ("scores", "answers", "truth", "quality", "option_quality"):
        assert np.array_equal(getattr(again, name), getattr(recording, name))
    assert again.outputs is None
    assert list(path.parent.iterdir()) == [path]


def corrupt(path: Path, recording: Recording, how: str) -> None:
    if how == "missing":
        return
    save_recording(recording, path)
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "text":
        path.write_text("not a recording")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "huge header":
        path.write_bytes((2**60).to_bytes(8, "little") + data[8:])
    elif how == "foreign":
        save_file({"a": np.zeros(3, dtype=np.float32)}, path)
    elif how == "score above one":
        save_recording(replace(recording, scores=recording.scores + np.float32(1.0)), path)
    elif how == "not a number":
        save_recording(replace(recording, quality=recording.quality * np.float32(np.nan)), path)
    elif how == "other length":
        save_recording(replace(recording, truth=recording.truth[:-1]), path)
    elif how == "other type":
        save_recording(replace(recording, truth=recording.truth.astype(np.float64)), path)
    elif how == "too few sources":
        save_recording(replace(recording, sources=recording.sources[:-1]), path)


HOWS = (
    *("missing", "truncated", "text", "empty", "huge header", "foreign", "score above one"),
    *("not a number", "other length", "other type", "too few sources"),
)


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_recording_is_one_clear_error(tmp_path: Path, recording: Recording, how: str) -> None:
    path = tmp_path / "bad.recording"
    corrupt(path, recording, how)
    with pytest.raises(DataError) as caught:
        load_recording(path)
    assert caught.value.file == str(path)


def write_images(folder: Path, table: TableRunner, names: list[str]) -> None:
    from PIL import Image

    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(table.image_of(number)).save(folder / name)


def test_labels_come_from_a_file_or_from_folders(
    tmp_path: Path, tiny_bundle: Bundle, table: TableRunner
) -> None:
    labels = tiny_bundle.manifest.labels
    write_images(tmp_path, table, [f"{labels[1]}/a.png", "0/b.png"])
    assert read_truth(tmp_path, labels) == {f"{labels[1]}/a.png": 1.0, "0/b.png": 0.0}
    (tmp_path / "truth.json").write_text(json.dumps({"0/b.png": labels[2], f"{labels[1]}/a.png": 0}))
    truth = read_truth(tmp_path, labels)
    assert truth == {"0/b.png": 2.0, f"{labels[1]}/a.png": 0.0}
    found = list(labelled_images(tmp_path, truth, limit=1))
    assert [(image.source, image.truth) for image in found] == [("0/b.png", 2.0)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"../x.png": 1}', '{"/x.png": 1}', '{"x.png": "nobody"}', "{" * 9999]
)
def test_bad_labels_are_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(DataError):
        read_truth(tmp_path, ("a", "b"))


def test_a_folder_without_labels_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_truth(tmp_path, ("a", "b"))


@pytest.mark.litert
def test_what_packers_make_is_recorded_as_a_gateway_would_answer(packed_bundle: Bundle) -> None:
    runner, _ = open_verified(packed_bundle)
    golden = packed_bundle.golden()
    shown = [
        LabelledImage(
            f"{row}.png",
            np.rint(golden.inputs["image"][row, 0, 0] * 255).astype(np.uint8),
            float(golden.outputs[-1][row].argmax()),
        )
        for row in range(golden.count)
    ]
    made = record(packed_bundle, shown, runner, data="golden", clock=clock_ms)
    quality = dict(
        zip(
            [(option.boundary, option.codec) for option in made.note.options],
            made.option_quality.mean(axis=0),
            strict=True,
        )
    )
    assert quality[1, "bottleneck8"] >= 15 / 16
    # Four patches in one lose what the tiny task is about.
    assert quality[1, "pool4-int8"] < 0.8
