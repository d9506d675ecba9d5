"""Packers that a plan asks for: made with the bundle, trained where they learn, found again after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs
from torch import Tensor, nn

from edgeexit.bundle import Bundle, model_blob, open_bundle, write_bundle
from edgeexit.bundle.manifest import CodecName, Packer
from edgeexit.bundle.packer_golden import PackerGolden, encode_packer_golden
from edgeexit.convert.conversion import convert
from edgeexit.convert.packers import Learning, require_tflite
from edgeexit.convert.packing import MadePackers, with_packers
from edgeexit.convert.preview import preview, render_preview
from edgeexit.convert.progress import Step
from edgeexit.errors import ConfigError
from edgeexit.models.protocol import State
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.runner.packing import open_packing, open_unpacking
from edgeexit.runner.selection import open_verified
from edgeexit.training.data import Samples
from edgeexit.transport.codecs import decode_tensors, encode_tensors, payload_bytes, sent_bytes
from tests.convert.conftest import Converted, tiny_set

pytestmark = [pytest.mark.convert, pytest.mark.litert]


class Halves:
    """Batches of the tiny task, counted."""

    def __init__(self) -> None:
        self.asked = 0

    def batch(self, number: int, size: int) -> Samples:
        self.asked += 1
        drawn = tiny_set(size, 1000 + number)
        pixels = drawn.images.astype(np.float32) / np.float32(255)
        return Samples(images=pixels, targets=drawn.targets, name="halves")


def test_a_plan_makes_packers_and_a_stopped_one_does_not_train_again(
    converted: Converted, tmp_path: Path
) -> None:
    plan = replace(
        converted.plan,
        variants=("f32",),
        codec_samples=16,
        codecs=("raw", "merge4-int8", "bottleneck2"),
        bottleneck_samples=96,
    )
    network = vit(
        ViTConfig(
            img_size=8, patch_size=2, in_chans=1, num_classes=4, embed_dim=16, depth=2, num_heads=2,
            exits=(1, 2), mean=(0.5,), std=(0.25,), head_hidden_dims=(),
        ),
        seed=3,
    )  # fmt: skip
    source = Halves()
    told: list[Step] = []

    def stop(step: Step) -> None:
        if step.name == "packers 1":
            raise KeyboardInterrupt

    def make(progress: list[Step] | None) -> None:
        convert(
            network,
            plan,
            calibration=converted.calibration,
            test=None,
            out=tmp_path / "packed",
            progress=stop if progress is None else progress.append,
            learning=Learning(source, "halves"),
        )

    with pytest.raises(KeyboardInterrupt):
        make(None)
    trained = source.asked
    assert trained > 0
    assert not (tmp_path / "packed").exists()
    make(told)
    assert source.asked == trained
    ended = [step.name for step in told if step.done == step.total and step.detail]
    assert ended[-3:] == ["bottleneck 1", "packers 1", "write"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "packed.report.json"]

    bundle = open_bundle(tmp_path / "packed")
    boundary = bundle.manifest.boundaries[1]
    assert [codec.codec for codec in boundary.codecs] == ["raw", "merge4-int8", "bottleneck2"]
    merged = boundary.packer("merge4-int8")
    assert merged is not None
    assert sorted(map(str, merged.tensors)) == ["merge4[1, 5, 16] float32", "merge4_places[1, 8] uint8"]
    assert boundary.codecs[1].payload_bytes == payload_bytes(merged.tensors, "merge4-int8")
    runner, _ = open_verified(bundle)
    packing, unpacking = open_packing(bundle, runner), open_unpacking(bundle, runner)
    assert packing.rejected == unpacking.rejected == ()
    state = runner.run(0, bundle.golden().sample(0)).boundary
    sent = encode_tensors(packing.run(1, merged, state), "merge4-int8")
    assert sent_bytes(sent) <= boundary.codecs[1].payload_bytes
    back = unpacking.run(1, merged, decode_tensors(sent, merged.tensors))
    came, was = back["tokens"].astype(np.float64), state["tokens"].astype(np.float64)
    assert np.linalg.norm(came - was) < 0.9 * np.linalg.norm(was)
    assert np.allclose(came[0, 0], was[0, 0], atol=0.1)  # the class token is kept

    wrong = with_other_places(bundle, merged, tmp_path / "wrong")
    rejected = open_packing(wrong, runner).rejected
    assert [each.packer for each in rejected] == ["merge4"]
    assert "merge4_places has" in rejected[0].why


def with_other_places(bundle: Bundle, merged: Packer, out: Path) -> Bundle:
    """The bundle, golden vectors of its packer saying that tokens go elsewhere."""
    golden = bundle.packer_golden(merged)
    places = {"merge4_places": golden.packed["merge4_places"] + np.float32(17.0)}
    data = encode_packer_golden(PackerGolden(dict(golden.packed) | places, golden.arrived, golden.answers))
    blob = model_blob(data)
    made = MadePackers((structs.replace(merged, golden=blob),), bundle.manifest.boundaries[1].codecs[1:2], {})
    manifest = with_packers(bundle.manifest, {1: made})
    files = {blob.file: data}
    files |= {
        each.file: bundle.blob_path(each).read_bytes() for each in manifest.blobs() if each.file not in files
    }
    return write_bundle(out, manifest, files)


class TwoTensors(nn.Module):
    """Passes a map and a latent on."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv = nn.Conv2d(1 if first else 4, 4, 3, padding=1)
        self.head = nn.Linear(8 if first else 12, 4)

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: image or map (1, C, 8, 8), latent (1, 2, 4)."""
        map_ = self.conv(state["image" if self.first else "map"]).relu()
        halves = torch.cat([map_[:, :, :4].mean((2, 3)), map_[:, :, :, :4].mean((2, 3))], dim=1)
        if self.first:
            return {"map": map_, "latent": halves.reshape(1, 2, 4)}, self.head(halves)
        return {}, self.head(torch.cat([halves, state["latent"].mean(1)], dim=1))


class TwoStages:
    """A network of two tensors between its stages."""

    def __init__(self) -> None:
        self.stages = nn.ModuleList((TwoTensors(first=True), TwoTensors(first=False))).eval()


def test_of_several_tensors_one_is_packed_and_the_others_go_along(
    converted: Converted, tmp_path: Path
) -> None:
    network = TwoStages()
    out = tmp_path / "two"
    plan = replace(converted.plan, variants=("f32",), codec_samples=8, codecs=("raw", "pool4-int8"))
    convert(network, plan, calibration=converted.calibration, test=None, out=out)
    bundle = open_bundle(out)
    packer = bundle.manifest.boundaries[1].packer("pool4-int8")
    assert packer is not None
    assert sorted(map(str, packer.tensors)) == [*("pool4[1, 16, 4] float32", "pool4_latent[1, 2, 4] float32")]
    runner, _ = open_verified(bundle)
    packing, unpacking = open_packing(bundle, runner), open_unpacking(bundle, runner)
    state = runner.run(0, bundle.golden().sample(0)).boundary
    sent = encode_tensors(packing.run(1, packer, state), "pool4-int8")
    back = unpacking.run(1, packer, decode_tensors(sent, packer.tensors))
    assert np.array_equal(back["latent"], state["latent"])
    assert back["map"].shape == state["map"].shape
    with pytest.raises(ConfigError, match="bottleneck8") as refused:
        convert(
            network,
            replace(plan, codecs=("raw", "bottleneck8")),
            calibration=converted.calibration,
            test=None,
            out=tmp_path / "no",
            learning=Learning(Halves(), "halves"),
        )
    assert "takes one tensor of tokens" in str(refused.value.why)


def test_the_plan_shows_packers_and_what_they_take(converted: Converted) -> None:
    plan = replace(converted.plan, codecs=("raw", "merge4-int4", "bottleneck2-zstd"))
    shown = preview(
        converted.network,
        plan,
        converted.calibration.images[:1],
        back_end="litert-torch",
        calibration_count=256,
        test_count=0,
    )
    offered = {codec.codec: codec.payload_bytes for codec in shown.stages[1].codecs}
    assert list(offered) == ["raw", "merge4-int4", "bottleneck2", "bottleneck2-zstd"]
    raw, merged = offered["raw"], offered["merge4-int4"]
    assert raw is not None
    assert merged is not None
    assert merged < raw / 3
    steps = {step.step: step for step in shown.steps}
    assert steps["bottleneck 1"].macs > steps["bottleneck 2"].macs > 20_000 * shown.stages[2].macs
    assert "trained on 20,000 images" in render_preview(shown)


def test_packers_that_cannot_be_made_are_refused_before_anything_is_done(
    converted: Converted, tmp_path: Path
) -> None:
    def refused(why: str, codec: CodecName) -> None:
        with pytest.raises(ConfigError) as error:
            convert(
                converted.network,
                replace(converted.plan, variants=("f32",), codecs=("raw", codec)),
                calibration=converted.calibration,
                test=None,
                out=tmp_path / "out",
                lowering=converted.lowering,
            )
        assert why in f"{error.value.what} {error.value.why}"

    refused("nothing to learn from", "bottleneck4")
    refused("16 patches cannot be merged 16 in one", "merge16-int8")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="bottleneck_seconds"):
        replace(converted.plan, bottleneck_seconds=0.0)
    model = tmp_path / "stage"
    model.write_bytes(b"\x08\x0a\x12\x07pytorch")
    require_tflite(model, ())
    with pytest.raises(ConfigError, match="ONNX stages have no packers"):
        require_tflite(model, ("pool4-int8",))
