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
from edgeexit.models.attached import AttachedConfig, attached
from edgeexit.models.branch_config import AnswerConfig, BranchConfig
from edgeexit.models.description import build, describe, read_description
from edgeexit.models.encoder_config import EncoderConfig
from edgeexit.models.vit import VIT_TINY, ViTConfig, vit, vit_tiny

SMALL = ViTConfig(
    img_size=8, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=2, num_heads=2,
    exits=(1, 2), mean=(0.5,), std=(0.3,), head_hidden_dims=(4,), stem_dims=(4,), mlp_ratio=2.5,
)  # fmt: skip


ATTACHED = AttachedConfig(
    EncoderConfig(
        image_height=8, image_width=12, patch_size=4, in_chans=1, num_classes=3, embed_dim=8, depth=3,
        num_heads=2, mlp_dim=16, mean=(0.5,), std=(0.3,), num_prefix_tokens=2, readout="patches",
        projections="apart", layer_scale=True,
    ),
    after=(1, 2),
    branches=(BranchConfig("cnn_add"), BranchConfig("local", dropout=0.0)),
    answer=AnswerConfig(classes=3),
    transfer=True,
)  # fmt: skip


def changed_attached(place: str, **settings: object) -> str:
    """ATTACHED's description with some settings changed, at the top or in one of its parts."""
    text = json.loads(describe(attached(ATTACHED, seed=0)))
    part = text["config"]
    for name in place.split(".") if place else ():
        part = part[int(name)] if isinstance(part, list) else part[name]
    part |= settings
    return json.dumps(text)


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


def test_an_attached_network_comes_back_with_depths_and_branches() -> None:
    network = attached(ATTACHED, seed=1).eval()
    text = describe(network)
    again = build(text)
    again.stages.load_state_dict(network.stages.state_dict())
    assert repr(again.stages) == repr(network.stages.train())
    description = read_description(text)
    assert description.config == ATTACHED
    assert description.image_shape == (1, 8, 12)
    assert (description.task, description.classes) == ("classification", 3)
    assert str(description).endswith("exits after blocks 1 (cnn_add), 2 (local), 3 (its own head)")


def test_values_are_described_as_values() -> None:
    answer = AnswerConfig(task="regression", value_offset=3.5, value_scale=2.0)
    config = replace(ATTACHED, answer=answer, final=BranchConfig("resmlp"))
    description = read_description(describe(attached(config, seed=0)))
    assert description.config == config
    assert (description.task, description.classes) == ("regression", 0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (changed_attached("", after=[1, 3]), "below 3"),
        (changed_attached("", after=[2, 1]), "do not rise"),
        (changed_attached("", after=[1]), "2 branches for 1"),
        (changed_attached("branches.0", kind="mpl"), "'mpl'"),
        (changed_attached("branches.1", dropout=2.0), "dropout"),
        (changed_attached("branches.1", kid="mlp"), "did you mean kind"),
        (changed_attached("answer", classes=4), "own head has 3 classes, not 4"),
        (changed_attached("answer", task="ranking"), "'ranking'"),
        (changed_attached("", finl=None), "did you mean final"),
        (changed_attached("backbone", embed_dims=3), "did you mean embed_dim"),
        (changed_attached("backbone", num_heads=3), "num_heads"),
        (changed_attached("backbone", image_width=4), "cannot be pooled"),
        (changed_attached("backbone", image_width=4_000_000), "image_width is 4000000"),
        (changed_attached("backbone", image_width=65_536, image_height=65_536), "tokens is"),
        (changed_attached("backbone", mlp_dim=10**9), "mlp_dim is 1000000000"),
        (changed_attached("backbone", depth=600), "depth is 600"),
        (changed_attached("backbone", std=[-1.0]), "std"),
        (changed_attached("backbone", norm_eps=0.0), "norm_eps"),
        (changed_attached("backbone", head_dropout=1.0), "head_dropout"),
        (changed_attached("backbone", activation="sine"), "'sine'"),
    ],
)
def test_refused_descriptions_of_attached_networks_say_why(text: str, complaint: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        read_description(text)
    assert complaint in caught.value.what


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "image_height",
                "patch_size",
                "embed_dim",
                "num_heads",
                "mlp_dim",
                "num_prefix_tokens",
                "readout",
            ]
        ),
        st.one_of(st.integers(), st.integers(1, 70_000), st.none(), st.text(max_size=3)),
        max_size=3,
    )
)
def test_whatever_is_read_of_a_backbone_can_be_built_without_memory(settings: dict[str, object]) -> None:
    try:
        description = read_description(changed_attached("backbone", **settings))
    except UnsupportedModel:
        return
    with torch.device("meta"):
        assert len(description.build().stages) == 3


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
    config = description.config
    assert isinstance(config, ViTConfig)
    if config.depth > 8:
        return  # slow to build, and no different
    with torch.device("meta"):
        network = description.build()
    assert len(network.stages) == len(config.exits)


def test_other_sizes_describe_differently() -> None:
    texts = {describe(vit(each, seed=0)) for each in (SMALL, replace(SMALL, num_classes=4))}
    texts.add(describe(vit(replace(VIT_TINY, depth=3, exits=(1, 3)), seed=0)))
    assert len(texts) == 3
