"""A backbone with exits: the protocol, who is told what, which parameters are whose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgeexit.models.attached import PREVIOUS, AttachedConfig, attached
from edgeexit.models.branch_config import AnswerConfig, BranchConfig
from edgeexit.models.encoder_config import EncoderConfig
from edgeexit.models.protocol import IMAGE, MultiExitNetwork, run_exits, run_stage
from edgeexit.models.vit import TOKENS

BACKBONE = EncoderConfig(
    image_height=8, image_width=8, patch_size=4, in_chans=1, num_classes=5, embed_dim=16, depth=4,
    num_heads=2, mlp_dim=32, mean=(0.3,), std=(0.5,), stem_dims=(4,), head_hidden_dims=(8,),
)  # fmt: skip
CONFIG = AttachedConfig(
    BACKBONE, (1, 3), (BranchConfig("mlp"), BranchConfig("resmlp")), AnswerConfig(classes=5)
)
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_keeps_the_protocol_with_named_states() -> None:
    network = attached(CONFIG, seed=0).eval()
    assert isinstance(network, MultiExitNetwork)
    state, first = run_stage(network, 0, {IMAGE: IMAGES})
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {TOKENS: (3, 5, 16)}
    outputs = network(IMAGES)
    assert [tuple(output.shape) for output in outputs] == [(3, 5)] * 3
    assert torch.equal(outputs[0], first)
    assert [len(stage.blocks) for stage in network.attached_stages()] == [1, 2, 1]


def test_branches_do_not_change_what_the_last_exit_says() -> None:
    network = attached(CONFIG, seed=0).eval()
    before = run_exits(network, IMAGES)
    with torch.no_grad():
        for branch in network.branches[:-1]:
            for parameter in branch.parameters():
                parameter.normal_()
    after = run_exits(network, IMAGES)
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])


def test_with_transfer_each_new_branch_is_told_what_the_one_before_said() -> None:
    config = replace(CONFIG, transfer=True, final=BranchConfig("linear"))
    network = attached(config, seed=0).eval()
    state, first = run_stage(network, 0, {IMAGE: IMAGES})
    assert torch.equal(state[PREVIOUS], first)
    _, told = run_stage(network, 1, state)
    _, otherwise = run_stage(network, 1, state | {PREVIOUS: first + 1.0})
    assert not torch.equal(told, otherwise)
    own = attached(replace(config, final=None), seed=0)
    state, _ = run_stage(own, 0, {IMAGE: IMAGES})
    state, _ = run_stage(own, 1, state)
    assert set(state) == {TOKENS}


def test_every_parameter_is_the_backbones_or_a_branchs() -> None:
    network = attached(CONFIG, seed=0)
    backbone = {id(parameter) for parameter in network.backbone_parameters()}
    new = {id(parameter) for branch in network.branches[:-1] for parameter in branch.parameters()}
    assert backbone.isdisjoint(new)
    assert backbone | new == {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for parameter in network.branches[-1].parameters()} <= backbone


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = (attached(CONFIG, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_regression_gives_value_and_spread_at_every_exit() -> None:
    answer = AnswerConfig(task="regression", value_offset=4.0, value_scale=3.0)
    network = attached(
        replace(CONFIG, answer=answer, final=BranchConfig("mlp"), transfer=True), seed=0
    ).eval()
    for output in network(IMAGES):
        assert output.shape == (3, 2)
        assert (output[:, 1] > 0).all()
        # Fresh branches answer about the middle, whatever the unit.
        assert (output[:, 0] - 4.0).abs().max() < 3.0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"after": (1, 4)}, "below 4"),
        ({"after": (3, 1)}, "do not rise"),
        ({"after": (0, 1)}, "do not rise"),
        ({"after": (1,)}, "2 branches for 1 early exits"),
        ({"answer": AnswerConfig(classes=6)}, "own head has 5 classes, not 6"),
        ({"answer": AnswerConfig(task="regression")}, "gives no spread"),
        (
            {"backbone": replace(BACKBONE, image_height=4), "final": BranchConfig("cnn_add")},
            "cannot be pooled",
        ),
    ],
)
def test_what_cannot_be_attached_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"depth": 0}, "below 1"),
        ({"num_prefix_tokens": -1}, "below 1"),
        ({"image_width": 9}, "no multiple of patch_size"),
        ({"stem_dims": (4, 4, 4)}, "stem"),
        ({"num_heads": 3}, "num_heads"),
        ({"mean": (0.1, 0.2)}, "channels"),
        ({"readout": "class_and_distillation"}, "do not fit readout"),
        ({"class_token": False}, "do not fit readout"),
        ({"readout": "patches", "num_prefix_tokens": 0}, "class token"),
    ],
)
def test_backbones_that_cannot_be_built_are_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replace(BACKBONE, **wrong)  # type: ignore[arg-type]
