"""docs/models.md says what is so: its example runs, its table is what is counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from edgeexit.models.attached import AttachedConfig, attached
from edgeexit.models.branch_config import BRANCH_KINDS, AnswerConfig, BranchConfig, BranchKind
from edgeexit.models.cost import branch_costs
from edgeexit.models.encoder_config import EncoderConfig
from edgeexit.models.torchvision_operators import make_importable

TEXT = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| `(\w+)` \| [^|]+ \| ([\d.]+) M \| ([\d,]+) \|")
VIT_B = EncoderConfig(
    image_height=224, image_width=224, patch_size=16, in_chans=3, num_classes=100, embed_dim=768,
    depth=2, num_heads=12, mlp_dim=3072, mean=(0.5,) * 3, std=(0.5,) * 3,
)  # fmt: skip


def test_the_example_runs() -> None:
    make_importable()
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {"images": torch.rand(2, 3, 64, 64)}
    exec(compile(example, "docs/models.md", "exec"), names)
    outputs = names["outputs"]
    assert isinstance(outputs, list)
    assert [tuple(output.shape) for output in outputs] == [(2, 1000)] * 4


@pytest.mark.parametrize("kind", BRANCH_KINDS)
def test_the_table_is_what_is_counted(kind: BranchKind) -> None:
    rows = {found[1]: (found[2], found[3]) for found in ROW.finditer(TEXT)}
    with torch.device("meta"):
        config = AttachedConfig(VIT_B, (1,), (BranchConfig(kind),), AnswerConfig(classes=100))
        network = attached(config, seed=0)
        cost = branch_costs(network, network.branches, torch.zeros(1, 3, 224, 224))[0]
    assert rows[kind] == (f"{cost.macs / 1e6:.1f}", f"{cost.parameters:,}")
