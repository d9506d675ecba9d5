"""A description brings back the same network, or says what is wrong with it; it never builds a monster."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgeexit.errors import UnsupportedModel
from edgeexit.models.description import build, describe, read_description
from edgeexit.models.vit import VIT_TINY, ViTConfig, vit, vit_tiny

SMALL = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(4,), stem_dims=(4,), mlp_ratio=2.5,
)  # fmt: skip


def changed(**settings: object) -> str:
    """SMALL's description with some settings changed."""
    text = json.loads(describe(vit(SMALL, seed=0)))
    text["config"] |= settings
    return json.dumps(text)


def test_a_network_comes_back_from_its_description() -> None:
    network = vit(SMALL, seed=1)
    again = build(describe(network))
    again.stages.load_state_dict(network.stages.state_dict())
    assert repr(again.stages) == repr(network.stages)
    assert read_description(describe(network)).config == SMALL


def test_a_description_says_what_it_takes_and_gives() -> None:
    description = read_description(describe(vit_tiny()))
    assert description.image_shape == (3, 224, 224)
    assert description.classes == 1000
    assert "192 wide, 12 blocks" in str(description)


def test_networks_of_no_family_cannot_be_described() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([nn.Identity()])

    with pytest.raises(UnsupportedModel, match="Own"):
        describe(Own())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "truncated"),
        ("[]", "Expected object"),
        ('{"family": "vit"}', "missing required field config"),
        ('{"family": "resnet", "config": {}}', "family 'resnet' is unknown"),
        ('{"family": "vit", "config": {}, "more": 1}', "more"),
        ("x" * 70_000, "70000 characters"),
        (changed(img_sise=3), "did you mean img_size"),
        (changed(img_size="8"), "Expected int"),
        (changed(img_size=9), "no multiple of patch_size"),
        (changed(patch_size=0), "below 1"),
        (changed(num_heads=0), "below 1"),
        (changed(num_classes=0), "below 1"),
        (changed(embed_dim=2_000_000), "embed_dim is 2000000"),
        (changed(depth=100_000, exits=[1, 100_000]), "not between 1"),
        (changed(depth=600, exits=[1, 600]), "depth is 600"),
        (changed(head_hidden_dims=[10**9]), "head_hidden_dims is 1000000000"),
        (changed(head_dropout=1.0), "head_dropout"),
        (changed(mlp_ratio=0.0), "mlp_ratio"),
        (changed(std=[0.0]), "std"),
        (changed(exits=[2, 1]), "must rise"),
    ],
)
def test_refused_descriptions_say_why(text: str, complaint: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        read_description(text)
    assert complaint in caught.value.what


@given(st.text(max_size=200))
def test_no_text_does_anything_but_describe_or_be_refused(text: str) -> None:
    with pytest.raises(UnsupportedModel):
        read_description(text)


@given(
    st.dictionaries(
        st.sampled_from(["img_size", "patch_size", "embed_dim", "num_heads", "depth", "mlp_ratio", "exits"]),
        st.one_of(st.integers(), st.floats(), st.none(), st.lists(st.integers(-3, 70_000), max_size=4)),
        max_size=3,
    )
)
def test_whatever_is_read_can_be_built_without_memory(settings: dict[str, object]) -> None:
    text = json.dumps(json.loads(changed()) | {"config": json.loads(changed())["config"] | settings})
    try:
        description = read_description(text)
    except UnsupportedModel:
        return
    if description.config.depth > 8:
        return  # slow to build, and no different
    with torch.device("meta"):
        network = description.build()
    assert len(network.stages) == len(description.config.exits)


def test_other_sizes_describe_differently() -> None:
    texts = {describe(vit(each, seed=0)) for each in (SMALL, replace(SMALL, num_classes=4))}
    texts.add(describe(vit(replace(VIT_TINY, depth=3, exits=(1, 3)), seed=0)))
    assert len(texts) == 3
