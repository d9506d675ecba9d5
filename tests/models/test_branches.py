"""Exit branches: what each looks at, what it costs, and that its lowered form answers the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeexit.convert.lowering import LoweringName, lower_module, lowering
from edgeexit.convert.parity import check_parity, references
from edgeexit.convert.slicing import slice_network
from edgeexit.models.attached import AttachedConfig, AttachedNetwork, attached
from edgeexit.models.branch_config import BRANCH_KINDS, AnswerConfig, BranchConfig, BranchKind
from edgeexit.models.cost import branch_costs, stage_costs
from edgeexit.models.encoder_config import EncoderConfig
from edgeexit.models.exit_branch import Answer, ExitBranch, branch_features
from edgeexit.models.tokens import TokenLayout
from edgeexit.runner.runtime import find_runtime

LAYOUT = TokenLayout(
    embed_dim=16, num_heads=2, mlp_dim=32, grid_height=4, grid_width=5, num_prefix_tokens=2, class_token=True
)
BACKBONE = EncoderConfig(
    image_height=16, image_width=12, patch_size=4, in_chans=1, num_classes=3, embed_dim=16, depth=12,
    num_heads=2, mlp_dim=24, mean=(0.5,), std=(0.25,), layer_scale=True,
)  # fmt: skip
SEVEN: tuple[BranchKind, ...] = (
    *("mlp", "cnn_ignore", "cnn_add", "cnn_project"),
    *("vit", "mlp_mixer", "resmlp"),
)
CLASSES = AnswerConfig(classes=3)
VALUES = AnswerConfig(task="regression", value_offset=5.0, value_scale=2.0)


def branch(kind: BranchKind, layout: TokenLayout = LAYOUT, answer: AnswerConfig = CLASSES) -> ExitBranch:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ExitBranch(BranchConfig(kind), layout, answer, transfer=False).eval()


def network(kinds: tuple[BranchKind, ...]) -> AttachedNetwork:
    """One exit of each kind, one a block, telling each other; weights large enough that exits differ."""
    config = AttachedConfig(
        replace(BACKBONE, depth=len(kinds) + 1),
        after=tuple(range(1, len(kinds) + 1)),
        branches=tuple(map(BranchConfig, kinds)),
        answer=CLASSES,
        transfer=True,
    )
    made = attached(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made


@pytest.mark.parametrize("kind", BRANCH_KINDS)
@pytest.mark.parametrize("prefix", [(0, False), (1, True), (2, True), (4, False)])
def test_every_branch_answers_for_every_token_layout(kind: BranchKind, prefix: tuple[int, bool]) -> None:
    layout = replace(LAYOUT, num_prefix_tokens=prefix[0], class_token=prefix[1])
    tokens = torch.randn(3, layout.num_tokens, layout.embed_dim)
    assert branch(kind, layout)(tokens).shape == (3, 3)
    assert branch(kind, layout, VALUES)(tokens).shape == (3, 2)


def changes(kind: BranchKind, place: int) -> bool:
    """Whether the branch sees that one token changed."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, LAYOUT.num_tokens, LAYOUT.embed_dim, generator=generator)
    other = tokens.clone()
    other[0, place] += torch.randn(LAYOUT.embed_dim, generator=generator)
    made = branch(kind)
    with torch.no_grad():
        return not torch.equal(made(tokens), made(other))


@pytest.mark.parametrize("kind", BRANCH_KINDS)
def test_each_branch_looks_at_the_tokens_it_is_said_to(kind: BranchKind) -> None:
    class_token, register, patch = 0, 1, 2
    assert changes(kind, class_token) == (kind != "cnn_ignore")
    assert changes(kind, patch) == (kind not in ("mlp", "linear"))
    # Registers take part in what mixes all tokens, and are no patches to any other branch.
    assert changes(kind, register) == (kind in ("vit", "mlp_mixer", "resmlp"))


def test_a_map_has_the_patches_in_raster_order() -> None:
    patches = torch.arange(20.0).reshape(1, 20, 1).expand(-1, -1, 16)
    grid = LAYOUT.feature_map(patches)
    assert grid.shape == (1, 16, 4, 5)
    assert grid[0, 0, 1].tolist() == [5.0, 6.0, 7.0, 8.0, 9.0]


def test_without_a_class_token_the_mean_of_the_patches_stands_for_it() -> None:
    layout = replace(LAYOUT, num_prefix_tokens=1, class_token=False)
    tokens = torch.randn(2, layout.num_tokens, layout.embed_dim)
    torch.testing.assert_close(layout.summary(tokens), tokens[:, 1:].mean(dim=1))


@pytest.mark.parametrize(
    ("kind", "macs"),
    [
        ("mlp", 4.8e6),
        ("cnn_ignore", 21.7e6 + 5.0e6),
        ("cnn_add", 21.7e6 + 5.0e6),
        ("cnn_project", 253e6 + 5.0e6),
        ("vit", 1454e6),
        ("mlp_mixer", 1859e6),
        ("resmlp", 959e6),
    ],
)
def test_branches_cost_what_is_known_of_vit_b(kind: BranchKind, macs: float) -> None:
    vit_b = EncoderConfig(
        image_height=224, image_width=224, patch_size=16, in_chans=3, num_classes=100, embed_dim=768,
        depth=2, num_heads=12, mlp_dim=3072, mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    config = AttachedConfig(vit_b, (1,), (BranchConfig(kind),), AnswerConfig(classes=100))
    with torch.device("meta"):
        made = attached(config, seed=0)
        image = torch.zeros(1, 3, 224, 224)
        early, own = branch_costs(made, made.branches, image)
        stages = stage_costs(made, image)
    assert abs(early.macs / macs - 1) < 0.01
    assert own.macs == 768 * 100
    assert own.parameters == 768 * 100 + 100 + 2 * 768
    # A stage is its blocks and its branch.
    assert stages[1].macs - own.macs == stages[0].macs - early.macs - 196 * 16 * 16 * 3 * 768


def test_counting_a_branch_leaves_the_network_as_it_was() -> None:
    made = network(("mlp",)).train()
    branch_costs(made, made.branches, torch.zeros(1, 1, 16, 12))
    assert all(module.training for module in made.modules())
    assert not any(module._forward_pre_hooks for module in made.modules())


def test_a_spread_is_positive_and_both_numbers_have_the_targets_unit() -> None:
    answer = Answer(VALUES)
    value, spread = answer(torch.tensor([[1.5, -4.0]]))[0]
    assert value.item() == pytest.approx(5.0 + 2.0 * 1.5)
    assert spread.item() == pytest.approx(2.0 * np.log1p(np.exp(-4.0)), rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"kind": "mpl"}, "branch 'mpl' is unknown"),
        ({"kind": "mlp", "dropout": 1.0}, "dropout"),
    ],
)
def test_branches_that_cannot_be_built_are_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        BranchConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "needs classes"),
        ({"task": "regression", "classes": 2}, "no classes"),
        ({"task": "regression", "value_scale": 0.0}, "value_scale"),
    ],
)
def test_answers_that_cannot_be_given_are_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AnswerConfig(**wrong)  # type: ignore[arg-type]


def test_a_grid_too_small_to_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be pooled"):
        branch_features(BranchConfig("cnn_add"), replace(LAYOUT, grid_height=1))


@pytest.mark.convert
@pytest.mark.litert
@pytest.mark.slow
@pytest.mark.timeout(900)  # a new machine has to install the second back end first
@pytest.mark.parametrize("back_end", get_args(LoweringName))
def test_every_branch_keeps_its_answers_when_lowered(back_end: LoweringName, tmp_path: Path) -> None:
    lower = lowering(back_end).lower
    made = network(BRANCH_KINDS)
    images = np.random.default_rng(0).random((4, 1, 1, 16, 12), dtype=np.float32)
    stages = slice_network(made, images[0], task="classification", classes=3)
    samples = references(stages, images)
    models: list[Path] = []
    for stage, reference in zip(stages, samples[0], strict=True):
        models.append(tmp_path / f"{stage.index}.{'onnx' if back_end == 'onnx' else 'tflite'}")
        models[-1].write_bytes(lower(stage, reference.inputs))
    parities = check_parity(stages, models, samples, tolerance=1e-4)
    assert max(parity.tensor_max_abs for parity in parities) < 1e-4
    told = [any(spec.name == "previous" for spec in stage.inputs) for stage in stages]
    assert told == [0 < k < len(BRANCH_KINDS) for k in range(len(stages))]


class Regressions(nn.Module):
    """All branches side by side, so that they are lowered at one go."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branch(kind, answer=VALUES) for kind in BRANCH_KINDS)
        self.answer = Answer(VALUES)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {
            kind: self.answer(each(tokens)) for kind, each in zip(BRANCH_KINDS, self.branches, strict=True)
        }


@pytest.mark.convert
@pytest.mark.litert
@pytest.mark.slow
def test_every_branch_keeps_its_values_and_spreads_when_lowered(tmp_path: Path) -> None:
    module = Regressions().eval()
    tokens = np.random.default_rng(0).normal(size=(1, 22, 16)).astype(np.float32)
    file = tmp_path / "all.tflite"
    file.write_bytes(lower_module(module, {"tokens": tokens}, 0))
    interpreter = find_runtime().make(file, 1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    given = {name: int(str(entry["index"])) for name, entry in runner.get_output_details().items()}
    (taken,) = (int(str(entry["index"])) for entry in runner.get_input_details().values())
    del runner
    interpreter.set_tensor(taken, tokens)
    interpreter.invoke()
    with torch.no_grad():
        expected = module(torch.from_numpy(tokens))
    for kind in BRANCH_KINDS:
        got = interpreter.get_tensor(given[kind]).astype(np.float32)
        np.testing.assert_allclose(got, expected[kind].numpy(), atol=1e-4)
