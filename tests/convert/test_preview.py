"""The plan of a conversion: what it reckons is what the network is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from edgeexit.convert.preview import Preview, encode_preview, preview, render_preview
from edgeexit.errors import UnsupportedModel

if TYPE_CHECKING:
    from edgeexit.convert.plan import ConversionPlan
    from edgeexit.models.vit import VisionTransformer
    from tests.convert.conftest import Converted

pytestmark = pytest.mark.convert

IMAGE = np.zeros((1, 1, 8, 8), np.uint8)


def shown(network: VisionTransformer, plan: ConversionPlan, images: int = 100) -> Preview:
    return preview(network, plan, IMAGE, back_end="litert-torch", calibration_count=images, test_count=0)


@pytest.mark.litert
def test_the_plan_tells_what_the_report_tells_afterwards(converted: Converted) -> None:
    found = shown(converted.network, converted.plan)
    for planned, made in zip(found.stages, converted.report.stages, strict=True):
        assert (planned.parameters, planned.macs) == (made.parameters, made.macs)
        assert planned.boundary_bytes == made.boundary_bytes
        assert [(each.codec, each.payload_bytes) for each in planned.codecs] == [
            (each.codec, each.payload_bytes) for each in made.codecs
        ]
    assert [step.step for step in found.steps] == [
        time.step for time in converted.report.times if not time.step.startswith("test ")
    ]


def test_work_grows_with_images_and_variants(
    tiny_network: VisionTransformer, tiny_plan: ConversionPlan
) -> None:
    few, many = shown(tiny_network, tiny_plan, 100), shown(tiny_network, tiny_plan, 300)
    whole = sum(stage.macs for stage in few.stages)
    by_step = [{step.step: step.macs for step in each.steps} for each in (few, many)]
    assert by_step[0]["calibration f32"] == 100 * whole
    assert by_step[1]["calibration f32"] == 300 * whole
    alone = shown(tiny_network, replace(tiny_plan, variants=("f32",)))
    assert sum(step.macs for step in alone.steps) < sum(step.macs for step in few.steps)
    assert alone.bundle_bytes < few.bundle_bytes


def test_people_read_stages_bytes_and_work(
    tiny_network: VisionTransformer, tiny_plan: ConversionPlan
) -> None:
    plan = replace(tiny_plan, codecs=("raw", "int8", "int8-zstd", "jpeg85"))
    found = replace(shown(tiny_network, plan), untrained=(0, 2), finished_steps=4)
    text = render_preview(found)
    for words in (
        "tokens[1, 17, 16]",
        "int8-zstd ?",
        "jpeg85 ?",
        "100 images",
        "never trained: 0, 2",
        "4 steps",
    ):
        assert words in text
    assert msgspec.json.decode(encode_preview(found), type=Preview) == found


def test_a_network_of_other_classes_is_refused(
    tiny_network: VisionTransformer, tiny_plan: ConversionPlan
) -> None:
    with pytest.raises(UnsupportedModel):
        shown(tiny_network, replace(tiny_plan, labels=("a", "b")))
