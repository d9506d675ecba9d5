"""Mixtures: the fastest within the loss allowed, as trying all of them finds it; and one really measured."""

from __future__ import annotations

import itertools
import math
import zlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.bundle import encode_manifest, open_bundle, write_bundle
from edgeexit.convert.mixture import EXACT, MeasuredLoss, choose_mixture, search_mixture, time_variants
from edgeexit.convert.parity import references
from edgeexit.convert.plan import network_input
from edgeexit.convert.quantise import quantise
from edgeexit.convert.slicing import slice_network
from edgeexit.convert.variants import MeasuredVariant
from edgeexit.errors import ConfigError, ManifestError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.convert.conftest import Converted

NAMES = ("f32", "f16", "int8")
_times = st.one_of(st.none(), st.floats(0.1, 10.0))


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.tuples(
            st.lists(st.floats(0.1, 10.0), min_size=k, max_size=k),
            *(st.lists(_times, min_size=k, max_size=k) for _ in range(2)),
        )
    ),
    st.floats(0.0, 0.2),
    st.integers(0, 1000),
)
def test_the_search_finds_what_trying_all_mixtures_finds(
    times: tuple[list[float | None], ...], most_loss: float, seed: int
) -> None:
    def loss(begun: tuple[str, ...]) -> float:
        assert begun.count(EXACT) < len(begun)
        return (zlib.crc32(f"{begun} {seed}".encode()) % 1000) / 2500.0

    times_ms = dict(zip(NAMES, times, strict=True))
    found = search_mixture(times_ms, loss, most_loss=most_loss)
    allowed: list[float] = []
    for mixture in itertools.product(NAMES, repeat=len(times[0])):
        spent = [times_ms[name][k] for k, name in enumerate(mixture)]
        begun = [mixture[: k + 1] for k in range(len(mixture))]
        lost = [0.0 if set(each) == {EXACT} else loss(each) for each in begun]
        if None not in spent and max(lost) <= most_loss:
            allowed.append(sum(ms for ms in spent if ms is not None))
    assert found.complete
    assert math.isclose(found.total_ms, min(allowed), abs_tol=1e-9)
    assert max(found.losses) <= most_loss
    for k, name in enumerate(found.variants):
        assert times_ms[name][k] is not None


def test_a_search_cut_short_still_gives_a_sound_mixture() -> None:
    times: dict[str, list[float | None]] = {"f32": [9.0] * 6, "int8": [1.0] * 6}
    found = search_mixture(times, lambda begun: 0.5 if len(begun) == 6 else 0.0, most_loss=0.1, most_trials=5)
    assert (found.variants, found.trials, found.complete) == (("f32",) * 6, 5, False)
    assert search_mixture(times, lambda begun: 0.0, most_loss=0.0).variants == ("int8",) * 6


@pytest.mark.parametrize(
    ("times", "most_loss"),
    [
        ({"int8": [1.0]}, 0.1),
        ({"f32": [1.0], "int8": [1.0, 2.0]}, 0.1),
        ({"f32": [None]}, 0.1),
        ({"f32": [1.0]}, -0.1),
        ({"f32": [1.0]}, math.nan),
    ],
)
def test_times_that_say_too_little_are_refused(
    times: dict[str, list[float | None]], most_loss: float
) -> None:
    with pytest.raises(ConfigError):
        search_mixture(times, lambda begun: 0.0, most_loss=most_loss)


@pytest.mark.convert
@pytest.mark.litert
def test_losses_are_those_of_real_stages_that_feed_each_other(converted: Converted, tmp_path: Path) -> None:
    calibration = converted.calibration
    example = network_input(calibration.images[:1])
    stages = slice_network(converted.network, example, task="classification", classes=4)
    models: dict[str, list[Path]] = {"f32": [], "int8": []}
    for stage in stages:
        lowered = converted.lowering.files[stage.index]
        for name, model in (("f32", lowered), ("int8", quantise(lowered, "int8", stage=stage.index))):
            models[name].append(tmp_path / f"{stage.index}.{name}.tflite")
            models[name][-1].write_bytes(model)
    loss = MeasuredLoss(
        stages, models, calibration.images[:64], calibration.targets[:64], task="classification"
    )
    assert loss(("f32", "f32")) == 0.0
    generous = search_mixture({"f32": [3.0] * 3, "int8": [1.0] * 3}, loss, most_loss=1.0)
    assert generous.variants == ("int8",) * 3
    strict = search_mixture({"f32": [3.0] * 3, "int8": [1.0] * 3}, loss, most_loss=0.0)
    assert max(strict.losses) <= 0.0
    assert generous.total_ms <= strict.total_ms
    # Order of asking changes nothing, whatever was kept from the beginning before.
    assert loss(("int8", "int8")) == generous.losses[1]
    assert loss(("int8",)) == generous.losses[0]


def test_a_conversions_own_mixture_reaches_the_manifest_and_its_times_do_not(
    converted: Converted, tmp_path: Path
) -> None:
    stages = slice_network(
        converted.network, network_input(converted.test.images[:1]), task="classification", classes=4
    )
    images = network_input(converted.calibration.images[:2])
    samples = references(stages, images[:, None])
    bundle = open_bundle(converted.out)
    variants = [
        MeasuredVariant(
            name=name,
            models=tuple(
                bundle.blob_path(next(v.blob for v in stage.variants if v.name == name))
                for stage in bundle.manifest.stages
            ),
            parity=(),
            agreement=(),
            accuracy_lost=(),
            answers=np.zeros((3, 0)),
            fitted=(),
            accuracy_test=None,
            risk_controls=(),
        )
        for name in converted.plan.variants
    ]
    timed = time_variants(stages, {each.name: each.models for each in variants}, samples[0], runs=3)
    assert all(len(times) == 3 and min(times) > 0.0 for times in timed.values())
    found = choose_mixture(
        stages,
        variants,
        samples,
        converted.test,
        most_loss=1.0,
        task="classification",
        times_ms={"f32": (4.0, 4.0, 1.0), "int8": (1.0, 1.0, 4.0), "int4": (0.1, 0.1, 0.1)},
    )
    assert found.variants == ("int8", "int8", "f32")  # one that was not made cannot be chosen
    preferring = msgspec.structs.replace(
        bundle.manifest,
        stages=tuple(
            msgspec.structs.replace(stage, preferred=name)
            for stage, name in zip(bundle.manifest.stages, found.variants, strict=True)
        ),
    )
    files = {blob.file: bundle.blob_path(blob).read_bytes() for blob in bundle.manifest.blobs()}
    written = write_bundle(tmp_path / "preferring", preferring, files)
    assert [stage.preferred for stage in open_bundle(written.path).manifest.stages] == list(found.variants)
    assert b"preferred" not in encode_manifest(bundle.manifest)  # older digests stay what they were
    unknown = msgspec.structs.replace(preferring.stages[0], preferred="int2")
    with pytest.raises(ManifestError, match="no such variant"):
        write_bundle(
            tmp_path / "unknown",
            msgspec.structs.replace(preferring, stages=(unknown, *preferring.stages[1:])),
            files,
        )
