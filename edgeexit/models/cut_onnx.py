"""A DINOv2 exported to ONNX from Hugging Face transformers, taken apart: its weights, no graph.

Exporters keep the names of biases and norms and lose those of transposed matrices; each matrix is found by
the bias that is added behind it. The decoder or head of the export is left behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeexit.errors import CannotCut, DataError, MissingExtra
from edgeexit.models.cut_hugging_face import IMAGENET_MEAN, IMAGENET_STD
from edgeexit.models.cutting import CutBackbone, Weights
from edgeexit.models.encoder_config import EncoderConfig

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

# The largest DINOv2 has 4.5 GB; protobuf itself ends at 2 GiB.
FILE_CAP_BYTES = 2 * 2**30
# Of every published DINOv2.
NORM_EPS = 1e-6

_LINEAR = {
    "attention.attention.query": "attn.query",
    "attention.attention.key": "attn.key",
    "attention.attention.value": "attn.value",
    "attention.output.dense": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def cut_onnx(
    path: Path,
    *,
    image_size: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> CutBackbone:
    """Read the backbone of such a file; at the file's own image size where none is given.

    Raises: DataError when the file cannot be read, CannotCut when it holds no such network, MissingExtra.
    """
    file = _File(path.name, _graph(path))
    begin = file.begin()
    projection = file.weight(f"{begin}embeddings.patch_embeddings.projection.weight")
    dim, channels, patch_size, _ = projection.shape
    depth = file.depth(begin)
    height, width = image_size or file.image_size()
    weights = Weights()
    weights.put("embedding.proj.weight", projection)
    weights.put("embedding.proj.bias", file.weight(f"{begin}embeddings.patch_embeddings.projection.bias"))
    class_position, positions = file.positions(dim)
    resampled = _resampled(positions, (height // patch_size, width // patch_size))
    weights.put("embedding.pos_embed", resampled)
    weights.put("embedding.prefix", file.weight(f"{begin}embeddings.cls_token") + class_position)
    for index in range(depth):
        theirs, ours = f"{begin}encoder.layer.{index}", f"blocks.{index}"
        for half in (1, 2):
            for kind in ("weight", "bias"):
                weights.put(f"{ours}.norm{half}.{kind}", file.weight(f"{theirs}.norm{half}.{kind}"))
            weights.put(f"{ours}.scale{half}.gamma", file.weight(f"{theirs}.layer_scale{half}.lambda1"))
        for path_there, name in _LINEAR.items():
            bias = f"{theirs}.{path_there}.bias"
            weights.put(f"{ours}.{name}.bias", file.weight(bias))
            weights.put(f"{ours}.{name}.weight", file.matrix_before(bias).T)
    for kind in ("weight", "bias"):
        weights.put(f"norm.{kind}", file.weight(f"{begin}layernorm.{kind}"))
    config = EncoderConfig(
        image_height=height,
        image_width=width,
        patch_size=patch_size,
        in_chans=channels,
        num_classes=0,
        embed_dim=dim,
        depth=depth,
        num_heads=file.heads(f"{begin}encoder.layer.0.attention.attention.key.bias"),
        mlp_dim=len(weights.found["blocks.0.mlp.fc1.bias"]),
        mean=mean or (IMAGENET_MEAN if channels == 3 else (0.5,) * channels),
        std=std or (IMAGENET_STD if channels == 3 else (0.5,) * channels),
        projections="apart",
        layer_scale=True,
        norm_eps=NORM_EPS,
    )
    return CutBackbone(config, weights.found, reference=None)


class _File:
    """The weights and nodes of a graph, by name."""

    def __init__(self, name: str, graph: GraphProto) -> None:
        from onnx import numpy_helper

        self.name = name
        self.graph = graph
        self.weights: Mapping[str, NDArray[np.generic]] = {
            each.name: numpy_helper.to_array(each) for each in graph.initializer
        }
        self.giver: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
        self.takers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for taken in node.input:
                self.takers.setdefault(taken, []).append(node)

    def refused(self, why: str) -> CannotCut:
        return CannotCut(model=self.name, why=why)

    def weight(self, name: str) -> Tensor:
        """A tensor by its name. Raises: CannotCut."""
        found = self.weights.get(name)
        if found is None:
            raise self.refused(f"it holds no {name}: only DINOv2 as transformers exports it is known")
        if found.dtype != np.float32:
            raise self.refused(f"{name} is {found.dtype}, float32 is known")
        return torch.from_numpy(found.copy())

    def begin(self) -> str:
        """What stands before the names of the backbone's tensors. Raises: CannotCut."""
        ending = "embeddings.cls_token"
        found = [name for name in self.weights if name.endswith(ending)]
        if len(found) != 1:
            raise self.refused(f"{len(found)} tensors are called {ending}, one is expected")
        return found[0].removesuffix(ending)

    def depth(self, begin: str) -> int:
        """How many blocks there are. Raises: CannotCut."""
        pattern = re.compile(re.escape(begin) + r"encoder\.layer\.(\d+)\.norm1\.weight")
        found = sorted(int(match[1]) for name in self.weights if (match := pattern.fullmatch(name)))
        if not found or found != list(range(len(found))):
            raise self.refused(f"its blocks are numbered {found[:4]}…")
        return len(found)

    def image_size(self) -> tuple[int, int]:
        """Height and width of the input. Raises: CannotCut when they are left open."""
        shape = [each.dim_value for each in self.graph.input[0].type.tensor_type.shape.dim]
        if len(shape) != 4 or min(shape[2:]) < 1:
            raise self.refused(f"its input has the shape {shape}: give image_size")
        return shape[2], shape[3]

    def positions(self, dim: int) -> tuple[Tensor, Tensor]:
        """Positions of the class token (1, 1, D) and of the patches (1, N, D). Raises: CannotCut."""
        found = [
            name
            for name, array in self.weights.items()
            if array.ndim == 3 and array.shape[::2] == (1, dim) and not name.endswith("_token")
        ]
        both = sorted(found, key=lambda name: self.weights[name].shape[1])
        if len(both) == 1 and self.weights[both[0]].shape[1] > 1:
            whole = self.weight(both[0])
            return whole[:, :1], whole[:, 1:]
        if len(both) != 2 or self.weights[both[0]].shape[1] != 1:
            raise self.refused(f"its positions are not found among {', '.join(found) or 'its tensors'}")
        return self.weight(both[0]), self.weight(both[1])

    def matrix_before(self, bias: str) -> Tensor:
        """The matrix that is multiplied before this bias is added. Raises: CannotCut."""
        for add in self.takers.get(bias, []):
            for name in add.input:
                product = self.giver.get(name)
                if product is not None and product.op_type == "MatMul" and product.input[1] in self.weights:
                    return self.weight(product.input[1])
        raise self.refused(f"no matrix is found before {bias}")

    def heads(self, key_bias: str) -> int:
        """How many heads the keys are parted into. Raises: CannotCut."""
        (add,) = self.takers.get(key_bias, [None])
        for reshape in () if add is None else self.takers.get(add.output[0], []):
            if reshape.op_type != "Reshape":
                continue
            shape = self.constant(reshape.input[1])
            if shape is not None and shape.size == 4:
                return int(shape[2])
            concat = self.giver.get(reshape.input[1])
            if concat is not None and concat.op_type == "Concat" and len(concat.input) == 4:
                heads = self.constant(concat.input[2])
                if heads is not None and heads.size == 1:
                    return int(heads.reshape(-1)[0])
        raise self.refused("the number of its heads is not found")

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """The value of a constant of the graph, or None."""
        from onnx import numpy_helper

        if name in self.weights:
            return self.weights[name]
        node = self.giver.get(name)
        if node is None or node.op_type != "Constant" or not node.attribute[0].HasField("t"):
            return None
        value: NDArray[np.generic] = numpy_helper.to_array(node.attribute[0].t)
        return value


def _graph(path: Path) -> GraphProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtra("onnx", extra="models", needed_for="reading an ONNX file") from error
    try:
        if path.stat().st_size > FILE_CAP_BYTES:
            raise DataError(f"{path} is refused", file=str(path), why=f"over {FILE_CAP_BYTES} bytes")
        # Weights in other files are not followed: their names could lead anywhere.
        return onnx.load(str(path), load_external_data=False).graph
    except (OSError, DecodeError, ValueError) as error:
        raise DataError(f"{path} is no usable ONNX file", file=str(path), why=str(error)) from error


def _resampled(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """As transformers does it for DINOv2: bicubic. Shapes: (1, N, D) to (1, h·w, D)."""
    side = int(positions.shape[1] ** 0.5)
    if grid == (side, side) or side * side != positions.shape[1]:
        return positions
    maps = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # 1 N D -> 1 D s s
    maps = torch.nn.functional.interpolate(maps, size=grid, mode="bicubic", align_corners=False)
    return maps.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)  # 1 D h w -> 1 hw D
