"""`edgeexit bench --on`: what each variant does on this machine, and what happens when none will serve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeexit.bundle import Bundle, model_blob, open_bundle
from edgeexit.bundle.encoding import digest_of, encode_manifest
from edgeexit.bundle.manifest import Manifest
from edgeexit.cli.bench_bundle import BenchTable

if TYPE_CHECKING:
    from tests.cli.conftest import Say

pytestmark = pytest.mark.litert

replace = msgspec.structs.replace


def _changed(bundle: Bundle, place: Path, stage: int, runtimes: dict[str, tuple[str, ...]]) -> Path:
    """A copy in which variants of one stage are for other runtimes."""
    shutil.copytree(bundle.path, place)
    stages = list(bundle.manifest.stages)
    stages[stage] = replace(
        stages[stage],
        variants=tuple(
            replace(variant, runtimes=runtimes.get(variant.name, variant.runtimes))
            for variant in stages[stage].variants
        ),
    )
    manifest: Manifest = replace(bundle.manifest, stages=tuple(stages))
    (place / "manifest.json").write_bytes(encode_manifest(manifest))
    (place / "manifest.json.sha256").write_text(f"{digest_of(manifest)}  manifest.json\n", encoding="ascii")
    return open_bundle(place).path


def test_every_variant_of_every_stage_has_its_row(say: Say, tiny_bundle: Bundle) -> None:
    said = say("bench", "--on", tiny_bundle.path, "--json")
    assert said.code == 0, said
    table = json.loads(said.out)
    assert table["digest"] == tiny_bundle.digest
    assert table["failure"] is None
    assert [(row["stage"], row["variant"]) for row in table["rows"]] == [
        (k, name) for k in range(3) for name in ("f32", "int8")
    ]
    for k in range(3):
        rows = [row for row in table["rows"] if row["stage"] == k]
        assert sum(row["chosen"] for row in rows) == 1
        for row in rows:
            assert row["passed"] is True
            assert row["why"] is None
            assert 0.0 < row["best_ms"] <= row["median_ms"]
            assert row["max_abs_diff"] <= row["tolerance"]


def test_every_codec_of_every_boundary_is_timed_here(say: Say, packed_bundle: Bundle) -> None:
    said = say("bench", "--on", packed_bundle.path, "--json")
    table = msgspec.json.decode(said.out, type=BenchTable)
    told = {(row.boundary, row.codec): row for row in table.codecs}
    for index, boundary in enumerate(packed_bundle.manifest.boundaries):
        for codec in boundary.codecs:
            row = told[index, codec.codec]
            assert (row.payload_bytes, row.quality_cost) == (codec.payload_bytes, codec.quality_cost)
            assert row.encode_ms is not None
            assert row.decode_ms is not None
    assert "bottleneck8" in say("bench", "--on", packed_bundle.path).out


def test_people_read_why_a_variant_is_not_used(
    say: Say, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    place = _changed(tiny_bundle, tmp_path / "changed", 1, {"int8": ("tflite-runtime",)})
    said = say("bench", "--on", place)
    assert said.code == 0, said
    assert said.out.count("pass") == 5
    assert said.out.count("chosen") == 4  # the column's name, and one a stage
    assert "tflite-runtime" in said.out


def _with_other_weights(bundle: Bundle, place: Path, stage: int, names: tuple[str, ...]) -> Path:
    """A copy, every digest right, whose variants of one stage hold their weights in another order."""
    shutil.copytree(bundle.path, place)
    stages = list(bundle.manifest.stages)
    variants = []
    for variant in stages[stage].variants:
        if variant.name in names:
            data = np.frombuffer((place / variant.blob.file).read_bytes(), np.uint8).copy()
            # Every dense constant of some size: whatever it holds, half of it is turned over.
            for start, size in _constants(data.tobytes()):
                half = data[start : start + size // 8 * 4]
                half[:] = half.reshape(-1, 4)[::-1].reshape(-1)
            blob = model_blob(data.tobytes())
            (place / blob.file).write_bytes(data.tobytes())
            variant = replace(variant, blob=blob)
        variants.append(variant)
    stages[stage] = replace(stages[stage], variants=tuple(variants))
    manifest: Manifest = replace(bundle.manifest, stages=tuple(stages))
    (place / "manifest.json").write_bytes(encode_manifest(manifest))
    (place / "manifest.json.sha256").write_text(f"{digest_of(manifest)}  manifest.json\n", encoding="ascii")
    return open_bundle(place).path


def _constants(model: bytes) -> list[tuple[int, int]]:
    """Where the larger constants of a file lie. Units: bytes, offset and size."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    held = [bytes(each.data) for each in tree.buffers if each.data is not None and len(each.data) >= 128]
    return [(model.index(each), len(each)) for each in held]


def test_a_variant_with_other_weights_fails_its_golden_vectors_and_never_serves(
    say: Say, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    place = _with_other_weights(tiny_bundle, tmp_path / "changed", 1, ("int8",))
    said = say("bench", "--on", place, "--json")
    assert said.code == 0, said
    rows = {(row["stage"], row["variant"]): row for row in json.loads(said.out)["rows"]}
    assert rows[1, "int8"]["passed"] is False
    assert "differ" in rows[1, "int8"]["why"]
    assert not rows[1, "int8"]["chosen"]
    assert rows[1, "f32"]["chosen"]

    none = _with_other_weights(tiny_bundle, tmp_path / "none", 0, ("int8", "f32"))
    said = say("bench", "--on", none, "--json")
    assert said.code == 4
    assert json.loads(said.err)["error"] == "VariantRejected"
    assert [row["chosen"] for row in json.loads(said.out)["rows"]] == [False] * 6


def test_golden_vectors_that_are_gone_or_changed_end_it_before_anything_runs(
    say: Say, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    place = shutil.copytree(tiny_bundle.path, tmp_path / "copy")
    golden = place / tiny_bundle.manifest.golden.file
    data = bytearray(golden.read_bytes())
    data[-2] ^= 0x40
    golden.write_bytes(data)
    say("bench", "--on", place).complains(4, "was changed after the bundle was made")
    golden.unlink()
    say("bench", "--on", place).complains(4, "golden.safetensors is missing")


def test_a_stage_without_a_variant_ends_the_table_and_the_command(
    say: Say, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    other = ("tflite-runtime",)
    place = _changed(tiny_bundle, tmp_path / "changed", 1, {"int8": other, "f32": other})
    said = say("bench", "--on", place, "--json")
    assert said.code == 1
    assert json.loads(said.err)["what"] == "stage 1 has no variant that runs here"
    table = json.loads(said.out)
    assert [row["passed"] for row in table["rows"]] == [True, True, False, False, None, None]
    assert sum(row["chosen"] for row in table["rows"]) == 1
    assert "stage 1 has no variant that runs here" in table["failure"]


def test_a_bundle_is_timed_alone(say: Say, tiny_bundle: Bundle) -> None:
    say("bench", "decision", "--on", tiny_bundle.path).complains(2, "decision is a benchmark")
    assert say("bench", "--json").code == 2
    say("bench", "--on", "nowhere").complains(4, "no bundle at nowhere")
