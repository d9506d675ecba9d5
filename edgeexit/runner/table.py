"""Recorded answers behind the Runner port: the reference that defines what a runner does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Manifest, TensorSpec
from edgeexit.errors import DataError, RunnerError
from edgeexit.runner.protocol import StageOutput, Tensor, Tensors


class TableRunner:
    """Answers from a table: one row for each sample, one output for each exit.

    The tensors of every boundary carry the sample's number, a bit an element, so that any runner of the
    same table, in whatever process and behind whatever codec, goes on with the same sample.
    `work` is called with the stage before it answers: a test lets its clock pass there.
    Shapes: outputs, one (n, C) for each exit.
    Raises: DataError when the table does not fit the manifest.
    """

    def __init__(
        self,
        manifest: Manifest,
        outputs: Sequence[NDArray[np.float32]],
        *,
        work: Callable[[int], None] | None = None,
    ) -> None:
        self._manifest = manifest
        self._outputs = tuple(np.ascontiguousarray(rows, dtype=np.float32) for rows in outputs)
        self._work = work
        wanted = [exit_.output.shape[-1] for exit_ in manifest.exits]
        got = [rows.shape[-1] if rows.ndim == 2 else None for rows in self._outputs]
        if got != wanted or len({len(rows) for rows in self._outputs}) != 1 or not len(self._outputs[0]):
            raise DataError(
                "table of answers is refused",
                file="table",
                why=f"{len(wanted)} exits with the same n ≥ 1 rows of {wanted} numbers are wanted",
            )
        self._bits = max(1, (self.sample_count - 1).bit_length())
        rooms = [boundary.tensors[0].size for boundary in manifest.boundaries]
        rooms[0] = manifest.preprocessing.height * manifest.preprocessing.width
        if min(rooms) < self._bits:
            raise DataError(
                "table of answers is refused",
                file="table",
                why=f"{self.sample_count} samples need {self._bits} elements, a boundary has {min(rooms)}",
            )

    @property
    def stage_count(self) -> int:
        """K."""
        return self._manifest.stage_count

    @property
    def sample_count(self) -> int:
        """n."""
        return len(self._outputs[0])

    def variant(self, stage: int) -> str:
        """The bundle's first variant of the stage."""
        return self._manifest.stages[stage].variants[0].name

    def image_of(self, sample: int) -> NDArray[np.uint8]:
        """An 8-bit image that stands for a sample. Shapes: (H, W), or (H, W, 3) in colour."""
        how = self._manifest.preprocessing
        plane = np.zeros(how.height * how.width, dtype=np.uint8)
        plane[: self._bits] = 255 * self._bits_of(sample)
        grid = plane.reshape(how.height, how.width)  # (H, W)
        return grid if how.color == "gray" else np.repeat(grid[:, :, None], 3, axis=2)  # (H, W, 3)

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        """Look one stage up. Raises: RunnerError."""
        if not 0 <= stage < self.stage_count:
            raise RunnerError(f"stage {stage} cannot run", stage=stage, why="there is no such stage")
        for spec in self._manifest.boundaries[stage].tensors:
            self._check(stage, spec, tensors)
        sample = self._sample(stage, tensors)
        if self._work is not None:
            self._work(stage)
        last = stage == self.stage_count - 1
        specs = () if last else self._manifest.boundaries[stage + 1].tensors
        return StageOutput(
            {spec.name: self._synthetic(spec, sample) for spec in specs}, self._outputs[stage][sample].copy()
        )

    def close(self) -> None:
        """Nothing to free."""

    def _bits_of(self, sample: int) -> NDArray[np.uint8]:
        if not 0 <= sample < self.sample_count:
            raise RunnerError(f"sample {sample} is not recorded", why=f"there are {self.sample_count}")
        return ((sample >> np.arange(self._bits)) & 1).astype(np.uint8)

    def _check(self, stage: int, spec: TensorSpec, tensors: Tensors) -> None:
        tensor = tensors.get(spec.name)
        if tensor is None or tensor.shape != spec.shape or tensor.dtype != spec.dtype:
            got = "nothing" if tensor is None else f"{list(tensor.shape)} {tensor.dtype}"
            raise RunnerError(f"stage {stage} cannot run", stage=stage, why=f"it takes {spec}, got {got}")

    def _sample(self, stage: int, tensors: Tensors) -> int:
        tensor = tensors[self._manifest.boundaries[stage].tensors[0].name]
        if stage == 0:
            nhwc = self._manifest.preprocessing.layout == "NHWC"
            tensor = tensor[..., 0] if nhwc else tensor[:, 0]  # (1, H, W)
        # Half of one: whatever a codec did to 0 and 1, this tells them apart.
        bits = np.asarray(tensor.reshape(-1)[: self._bits], dtype=np.float32) > 0.5
        sample = int(bits.astype(np.int64) @ (1 << np.arange(self._bits, dtype=np.int64)))
        if sample >= self.sample_count:
            raise RunnerError(
                f"stage {stage} cannot run", stage=stage, why=f"its tensors name no sample: {sample}"
            )
        return sample

    def _synthetic(self, spec: TensorSpec, sample: int) -> Tensor:
        tensor = np.zeros(spec.size, dtype=spec.dtype)
        carried = min(spec.size, self._bits)
        tensor[:carried] = self._bits_of(sample)[:carried]
        return tensor.reshape(spec.shape)
