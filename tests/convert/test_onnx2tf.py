"""The second back end, for real: installed into an environment of its own, and as right as the first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from edgeexit.convert import onnx2tf
from edgeexit.convert.child import ChildEnd
from edgeexit.convert.environment import Interpreter, ToolEnvironment
from edgeexit.convert.lowering import lowering
from edgeexit.convert.onnx2tf import Onnx2tf
from edgeexit.convert.parity import check_parity, references
from edgeexit.convert.plan import network_input
from edgeexit.convert.signature import rename_signature
from edgeexit.convert.slicing import slice_network
from edgeexit.errors import ConfigError, LoweringError
from edgeexit.models.protocol import MultiExitNetwork

if TYPE_CHECKING:
    from edgeexit.models.vit import VisionTransformer
    from tests.convert.conftest import Converted

pytestmark = [pytest.mark.convert, pytest.mark.litert]

State = dict[str, Tensor]


class Streams(nn.Module):
    """Tokens and a square map go on together: the layouts that are lost most easily."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.conv = nn.Conv2d(1 if not last else 4, 4, 3, padding=1)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, state: State) -> tuple[State, Tensor]:
        maps = torch.relu(
            self.conv(state["maps"] if self.last else state["image"][:, :, ::2, ::2])
        )  # 1 4 4 4
        tokens = maps.flatten(2)  # 1 4 16
        if self.last:
            tokens = tokens + state["tokens"]
        tokens = nn.functional.gelu(self.mix(tokens))
        output = self.head(tokens.mean(dim=1))  # 1 4 16 -> 1 4
        return {} if self.last else {"maps": maps, "tokens": tokens}, output


class TwoTensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Streams(last=False), Streams(last=True)])


# It installs 350 MB, for which a slow registry takes its time.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_lowers_tokens_and_maps_as_the_network_computes_them(
    tiny_network: VisionTransformer, converted: Converted, tmp_path: Path
) -> None:
    back_end = lowering("onnx2tf")
    assert isinstance(back_end, Onnx2tf)
    assert any(tool.startswith("onnx2tf ") for tool in back_end.tools)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        two = TwoTensors().eval()
    images = network_input(converted.calibration.images[:4])
    networks: tuple[MultiExitNetwork, ...] = (two, tiny_network)
    for number, network in enumerate(networks):
        stages = slice_network(network, images[:1], task="classification", classes=4)
        samples = references(stages, images[:, None])
        files: list[Path] = []
        for stage in stages[:2]:  # the third is like the second
            files.append(tmp_path / f"{number}.{stage.index}")
            files[-1].write_bytes(back_end.lower(stage, samples[0][stage.index].inputs))
        found = check_parity(stages[:2], files, samples, tolerance=1e-4)
        assert all(parity.same_answers == 1.0 for parity in found)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Onnx2tf:
    """The back end with an environment that is said to be there."""
    monkeypatch.setattr(ToolEnvironment, "python", lambda *_: tmp_path / "python")
    return Onnx2tf(cache=tmp_path)


def refused(back_end: Onnx2tf, converted: Converted) -> LoweringError:
    images = network_input(converted.calibration.images[:1])
    stages = slice_network(converted.network, images, task="classification", classes=4)
    with pytest.raises(LoweringError) as caught:
        back_end.lower(stages[0], references(stages, images[:, None])[0][0].inputs)
    assert caught.value.stage == 0
    return caught.value


def test_its_last_words_are_told(
    installed: Onnx2tf, converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sequence[str]] = []
    environments: list[dict[str, str]] = []

    def run(command: Sequence[str], *, environment: dict[str, str], **_: object) -> ChildEnd:
        seen.append(command)
        environments.append(environment)
        return ChildEnd("it took longer than 600 s", "lowering Foo\nstuck")

    monkeypatch.setattr(onnx2tf, "run_child", run)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    error = refused(installed, converted)
    assert "took longer than 600 s" in str(error)
    assert "stuck" in str(error)
    command = seen[0]
    assert command[command.index("-kat") + 1 :] == ["input_0"]  # layouts are kept, or tokens are turned
    # Nothing is fetched, and nothing of another environment is imported.
    assert environments[0]["HTTPS_PROXY"].endswith(":9")
    assert "PYTHONPATH" not in environments[0]
    assert environments[0]["PATH"] == os.environ["PATH"]


def test_maps_need_the_version_that_keeps_their_layout(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> ChildEnd:
        raise AssertionError("nothing is run")

    monkeypatch.setattr(onnx2tf, "run_child", run)
    older = Onnx2tf(interpreter=Interpreter(Path("python3.11"), (3, 11, 7)))
    images = network_input(converted.calibration.images[:1])
    stages = slice_network(TwoTensors().eval(), images, task="classification", classes=4)
    with pytest.raises(LoweringError, match=r"layout of image\[1, 1, 8, 8\] float32.*3\.12"):
        older.lower(stages[0], {"image": images})
    coloured = replace(stages[0], inputs=())
    with pytest.raises(LoweringError, match=r"layout of maps\[1, 4, 4, 4\] float32.*3\.12"):
        older.lower(coloured, {})


def test_a_file_that_was_not_written_is_told(
    installed: Onnx2tf, converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx2tf, "run_child", lambda *_, **__: ChildEnd(None, "nothing to do"))
    assert "wrote no file: nothing to do" in str(refused(installed, converted))


def test_a_signature_is_renamed_or_refused(converted: Converted) -> None:
    model = converted.lowering.files[1]
    renamed = rename_signature(model, {"tokens": "state"}, {"tokens": "next", "logits": "answer"}, {})
    assert renamed is not None
    back = rename_signature(renamed, {"state": "tokens"}, {"next": "tokens", "answer": "logits"}, {})
    assert back is not None
    assert rename_signature(model, {"image": "tokens"}, {"tokens": "a", "logits": "b"}, {}) is None
    assert rename_signature(model, {"tokens": "tokens"}, {"tokens": "a"}, {}) is None


def test_only_known_back_ends_are_given() -> None:
    with pytest.raises(ConfigError, match="no back end 'tvm'"):
        lowering("tvm")  # type: ignore[arg-type]
