"""The second back end: torch.onnx, then onnx2tf in an environment and a process of its own.

Source: onnx2tf's README for its flags, and what was seen of its two lines of versions:
without `-kat` for every input, a state of [1, 65, 192] silently becomes [1, 192, 65];
without `-osd`, 1.29 writes no signature to bind tensors by; maps that it gives are [1, H, W, C],
and what it makes of images with one channel is wrong;
of two outputs that are one tensor, 2.6 computes one;
1.29 fetches a sample file for images, unless it lies in the working directory;
its own quantised files are broken for these networks, so that only its f32 file is taken.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeexit.bundle.tflite import check_model_bytes
from edgeexit.convert.child import run_child
from edgeexit.convert.environment import (
    Interpreter,
    ToolEnvironment,
    cache_folder,
    find_interpreter,
    require_interpreter,
    requirements,
)
from edgeexit.convert.onnx_export import export_module
from edgeexit.convert.signature import rename_signature
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import LoweringError, UnsafeModel

# A stage of a ViT-Tiny takes 2 s without TensorFlow and half a minute with it; busy machines take longer.
CONVERT_S = 600.0

# The newest line needs Python 3.12; its pins have wheels up to 3.13. The last with TensorFlow is for 3.11.
NEWER = ((3, 12), (3, 13))
OLDER = ((3, 11), (3, 11))

_SAMPLES = "calibration_image_sample_data_20x128x128x3_float32.npy"
# A port that no server listens on: a tool that wants to fetch something fails at once, and says so.
_NOWHERE = "http://127.0.0.1:9"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One line of versions of onnx2tf: what it is installed from, and its flags.

    `keeps_maps` says whether maps that a stage gives keep the layout that they have in torch.
    """

    requirements: str
    flags: tuple[str, ...]
    keeps_maps: bool


_NEWER_RECIPE = Recipe("onnx2tf-python3.12.txt", (), keeps_maps=True)
# Its stages need a signature asked for; the same flag writes a SavedModel, which nobody reads.
_OLDER_RECIPE = Recipe("onnx2tf-python3.11.txt", ("-osd",), keeps_maps=False)


class Onnx2tf:
    """onnx2tf: torch.onnx to TFLite. `tell` gets its lines; the environment is made when first used.

    `interpreter` is the Python that it runs with, None for the newest that it has wheels for.
    """

    def __init__(
        self,
        *,
        cache: Path | None = None,
        interpreter: Interpreter | None = None,
        tell: Callable[[str], None] = _log.info,
        limit_s: float = CONVERT_S,
    ) -> None:
        self._cache = cache
        self._interpreter = interpreter
        self._tell = tell
        self._limit_s = limit_s

    @property
    def tools(self) -> tuple[str, ...]:
        """torch, its exporter's writer, and onnx2tf with the digest of all that is installed beside it.

        Raises: MissingProgram.
        """
        _, recipe = self._chosen()
        text = requirements(recipe.requirements)
        pinned = next(line for line in text.splitlines() if line.startswith("onnx2tf=="))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return (
            *(f"{name} {version(name)}" for name in ("torch", "onnxscript", "onnx")),
            f"onnx2tf {pinned.partition('==')[2]} of {digest}",
        )

    def environment(self) -> ToolEnvironment:
        """The environment that it runs in, made or not. Raises: MissingProgram."""
        interpreter, recipe = self._chosen()
        return ToolEnvironment("onnx2tf", requirements(recipe.requirements), interpreter)

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        """The f32 file of one stage.

        Raises: LoweringError, MissingExtra; MissingProgram, ToolError where it cannot be installed.
        """
        _, recipe = self._chosen()
        grey = [spec for spec in stage.inputs if len(spec.shape) == 4 and spec.shape[1] == 1]
        maps = [*grey, *(spec for spec in stage.following if len(spec.shape) == 4)]
        if maps and not recipe.keeps_maps:
            raise LoweringError(
                f"onnx2tf 1.29, the last for Python 3.11, loses the layout of {maps[0]}: install Python 3.12"
                " or 3.13, for which there is one that keeps it, or convert by litert-torch",
                stage=stage.index,
            )
        # Plain names, which every step keeps as they are; the real ones are put back at the end.
        inputs = {f"input_{i}": spec.name for i, spec in enumerate(stage.inputs)}
        twins = _twins(stage, tensors)
        names = [spec.name for spec in (*stage.following, stage.output) if spec.name not in twins]
        outputs = {f"output_{i}": name for i, name in enumerate(names)}
        model = export_module(
            _Once(stage.module, names),
            {name: tensors[name] for name in inputs.values()},
            inputs=list(inputs),
            outputs={name: plain for plain, name in outputs.items()},
            index=stage.index,
        )
        converted = self._convert(model, list(inputs), stage.index)
        lowered = rename_signature(converted, inputs, outputs, twins)
        if lowered is None:
            raise LoweringError("onnx2tf lost the names of inputs or outputs", stage=stage.index)
        try:
            check_model_bytes(lowered, file="what onnx2tf wrote")
        except UnsafeModel as error:
            raise LoweringError(str(error), stage=stage.index) from error
        return lowered

    def _convert(self, model: bytes, inputs: list[str], stage: int) -> bytes:
        _, recipe = self._chosen()
        cache = cache_folder() if self._cache is None else self._cache
        python = self.environment().python(cache, self._tell)
        with tempfile.TemporaryDirectory(prefix="edgeexit-onnx2tf-") as name:
            folder = Path(name)
            (folder / "stage.onnx").write_bytes(model)
            _write_samples(folder / _SAMPLES)
            command = [str(python), "-m", "onnx2tf", "-i", "stage.onnx", "-o", "out", "-coion", "-n"]
            done = run_child(
                [*command, *recipe.flags, "-kat", *inputs],
                limit_s=self._limit_s,
                tell=self._tell,
                cwd=folder,
                environment=_offline(os.environ, folder),
            )
            written = folder / "out" / "stage_float32.tflite"
            if done.why is None and not written.is_file():
                raise LoweringError(f"onnx2tf wrote no file: {done.last_words}", stage=stage)
            if done.why is not None:
                raise LoweringError(f"onnx2tf failed, {done.why}: {done.last_words}", stage=stage)
            return written.read_bytes()

    def _chosen(self) -> tuple[Interpreter, Recipe]:
        if self._interpreter is None:
            self._interpreter = find_interpreter(*NEWER) or require_interpreter(*OLDER, needed_for="onnx2tf")
        newer = self._interpreter.version >= (3, 12)
        return self._interpreter, _NEWER_RECIPE if newer else _OLDER_RECIPE


class _Once(nn.Module):
    """A stage that gives every tensor once: of two names for one, it leaves one without a value."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)

    # The argument names are the tensor names of the boundary, as they are in the stage.
    def forward(self, **state: Tensor) -> dict[str, Tensor]:
        """The outputs of these names."""
        outputs: dict[str, Tensor] = self.module(**state)
        return {name: outputs[name] for name in self.names}


def _twins(stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> dict[str, str]:
    """Outputs that are the very tensor of an earlier one, as an exit's logits that the next exit is told."""
    with torch.no_grad():
        given = {
            spec.name: torch.from_numpy(np.ascontiguousarray(tensors[spec.name])) for spec in stage.inputs
        }
        outputs: dict[str, Tensor] = stage.module(**given)
    first: dict[int, str] = {}
    return {
        name: first[id(tensor)]
        for name, tensor in outputs.items()
        if first.setdefault(id(tensor), name) != name
    }


def _write_samples(path: Path) -> None:
    """The sample images that 1.29 would fetch; grey ones do, since nothing is quantised with them."""
    np.save(path, np.full((20, 128, 128, 3), 0.5, np.float32), allow_pickle=False)


def _offline(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment of a process that finds neither the network nor packages of other environments."""
    kept = {
        name: value for name, value in variables.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOWHERE)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "0", "TQDM_DISABLE": "1"}
    # No graphics card: it lowers no faster, and TensorFlow would take all of its memory.
    alone = {"PYTHONNOUSERSITE": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(folder)}
    return {**kept, **proxies, "NO_PROXY": "", "no_proxy": "", **quiet, **alone}
