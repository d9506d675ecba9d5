"""Every way in which a conversion may fail: a typed error that names the stage, and nothing written."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeexit.convert.conversion import convert
from edgeexit.convert.lowering import LiteRTTorch, Lowering
from edgeexit.convert.plan import ConversionPlan, Tolerances
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import DataError, EdgeExitError, LoweringError, ParityError, UnsupportedModel
from edgeexit.models.protocol import MultiExitNetwork

if TYPE_CHECKING:
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert]


class Recorded:
    """Files that were lowered before, one of them replaced."""

    def __init__(self, files: Mapping[int, bytes], stage: int, file: bytes) -> None:
        self.tools = ("recorded 1",)
        self._files = {**files, stage: file}

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        return self._files[stage.index]


def refused(
    converted: Converted,
    tmp_path: Path,
    *,
    network: MultiExitNetwork | None = None,
    plan: ConversionPlan | None = None,
    lowering: Lowering | None = None,
) -> EdgeExitError:
    """The error of a conversion that must fail, having left nothing behind."""
    with pytest.raises(EdgeExitError) as caught:
        convert(
            converted.network if network is None else network,
            converted.plan if plan is None else plan,
            calibration=converted.calibration,
            test=converted.test,
            out=tmp_path / "tiny",
            lowering=converted.lowering if lowering is None else lowering,
        )
    assert list(tmp_path.iterdir()) == []
    return caught.value


def test_a_back_end_that_computes_something_else_is_found_out(converted: Converted, tmp_path: Path) -> None:
    other = copy.deepcopy(converted.network)
    with torch.no_grad():
        other.stages[1].blocks[0].mlp.fc2.weight += 0.01  # type: ignore[union-attr, index]
    error = refused(converted, tmp_path, network=other)
    assert isinstance(error, ParityError)
    assert error.stage == 1
    assert error.tensor in ("tokens", "logits")
    assert error.max_abs_diff > error.tolerance > 0.0


def test_a_quantised_variant_that_answers_otherwise_is_refused(converted: Converted, tmp_path: Path) -> None:
    # No variant can agree more often than always.
    plan = replace(converted.plan, tolerances=Tolerances(agreement=1.01))
    error = refused(converted, tmp_path, plan=replace(plan, variants=("f32", "int8")))
    assert isinstance(error, ParityError)
    assert error.stage == 0


@pytest.mark.parametrize("file", [b"", b"TFL3 but not really", b"\0" * 4096])
def test_a_file_that_is_no_model_is_refused(converted: Converted, tmp_path: Path, file: bytes) -> None:
    error = refused(converted, tmp_path, lowering=Recorded(converted.lowering.files, 2, file))
    assert isinstance(error, LoweringError)
    assert error.stage == 2


def test_a_file_with_other_tensors_is_refused(converted: Converted, tmp_path: Path) -> None:
    files = converted.lowering.files
    error = refused(converted, tmp_path, lowering=Recorded(files, 1, files[0]))
    assert isinstance(error, LoweringError)
    assert error.stage == 1
    assert "tokens[1, 17, 16] float32 is wanted" in str(error)


class Sorting(nn.Module):
    """Eigenvalues have no TFLite operation."""

    def forward(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        return {}, torch.linalg.eigvalsh(state["image"][:, 0, :4, :4])  # 1 1 8 8 -> 1 4


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Sorting()])


def test_an_operation_that_cannot_be_lowered_names_its_stage(converted: Converted, tmp_path: Path) -> None:
    error = refused(converted, tmp_path, network=Nothing(), lowering=LiteRTTorch())
    assert isinstance(error, LoweringError)
    assert error.stage == 0
    assert error.__cause__ is not None


def test_more_labels_than_classes_is_refused(converted: Converted, tmp_path: Path) -> None:
    plan = replace(converted.plan, labels=(*converted.plan.labels, "centre"))
    error = refused(converted, tmp_path, plan=plan)
    assert isinstance(error, UnsupportedModel)
    assert "[1, 5]" in error.expected


def test_targets_outside_the_labels_are_refused(converted: Converted, tmp_path: Path) -> None:
    calibration = replace(converted.calibration, targets=converted.calibration.targets + 1)
    with pytest.raises(DataError, match="calibration"):
        convert(
            converted.network,
            converted.plan,
            calibration=calibration,
            test=None,
            out=tmp_path / "tiny",
            lowering=converted.lowering,
        )
    assert list(tmp_path.iterdir()) == []
