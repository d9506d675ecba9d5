"""What the dynamic 8-bit variant leaves alone: a convolution that its runtime has no fast 8-bit way for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeexit.convert.lowered import litert
from edgeexit.convert.lowering import lower_module
from edgeexit.convert.quantise import quantise

pytestmark = [pytest.mark.convert, pytest.mark.litert]


class Patches(nn.Module):
    """Patches of a one-channel image, which are lowered as a depthwise convolution, and a layer on them."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, 32, kernel_size=4, stride=4)
        self.fc = nn.Linear(32, 32)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        patches = self.proj(image).permute(0, 2, 3, 1).flatten(1, 2)  # B 1 H W -> B D g g -> B N D
        return {"patches": patches, "dense": self.fc(patches)}


def answers(model: bytes, path: Path, image: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
    path.write_bytes(model)
    interpreter = litert().make(path, 1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    (place,) = (cast("int", entry["index"]) for entry in runner.get_input_details().values())
    places = {name: cast("int", entry["index"]) for name, entry in runner.get_output_details().items()}
    del runner  # nothing can be run while it holds on to the interpreter's memory
    interpreter.set_tensor(place, image)
    interpreter.invoke()
    return {name: interpreter.get_tensor(index) for name, index in places.items()}


def test_dynamic_8_bit_leaves_a_depthwise_convolution_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = np.random.default_rng(0).random((1, 1, 16, 16), dtype=np.float32)
    model = lower_module(Patches().eval(), {"image": image}, 0)
    whole = answers(model, tmp_path / "f32.tflite", image)
    small = answers(quantise(model, "int8", stage=0), tmp_path / "int8.tflite", image)
    assert np.array_equal(small["patches"], whole["patches"])
    assert not np.array_equal(small["dense"], whole["dense"])
    assert np.abs(np.subtract(small["dense"], whole["dense"])).max() < 0.05
