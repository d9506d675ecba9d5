"""What this machine can run the stages of a bundle with, TFLite and ONNX, behind one way to load a stage."""

from __future__ import annotations

from dataclasses import dataclass

from edgeexit.bundle.manifest import Format, Manifest, Variant
from edgeexit.bundle.store import Bundle
from edgeexit.errors import MissingExtra, RunnerError
from edgeexit.runner.litert import load_stage
from edgeexit.runner.onnx import ONNX_RUNTIME, OnnxRuntime, Provider, find_onnx_runtime, load_onnx_stage
from edgeexit.runner.protocol import LoadedStage
from edgeexit.runner.runtime import Runtime, find_runtime


@dataclass(frozen=True, slots=True)
class Runtimes:
    """The runtimes that are here, of those that a bundle has variants for; one of them at least."""

    tflite: Runtime | None
    onnx: OnnxRuntime | None

    @property
    def name(self) -> str:
        """The one that most variants are for."""
        return ONNX_RUNTIME if self.tflite is None else self.tflite.name

    @property
    def version(self) -> str:
        """Its version."""
        if self.tflite is not None:
            return self.tflite.version
        return "" if self.onnx is None else f"{self.onnx.version} {self.onnx.providers[0]}"

    @property
    def beside(self) -> str | None:
        """The other one, where there are two."""
        return None if self.tflite is None or self.onnx is None else self.onnx.name

    def load(self, bundle: Bundle, stage: int, variant: Variant, *, threads: int) -> LoadedStage:
        """Load one variant of a stage. Raises: RunnerError, ShapeError, MissingFile, UnsafePath."""
        if variant.format == "onnx" and self.onnx is not None:
            return load_onnx_stage(bundle, stage, variant, runtime=self.onnx, threads=threads)
        if variant.format == "tflite" and self.tflite is not None:
            return load_stage(bundle, stage, variant, runtime=self.tflite, threads=threads)
        raise RunnerError(
            f"stage {stage}, variant {variant.name} cannot be loaded",
            stage=stage,
            why=f"it is for {', '.join(variant.runtimes)}, which is not installed here",
        )


def find_runtimes(
    manifest: Manifest, *, runtime: Runtime | None = None, provider: Provider = "cpu"
) -> Runtimes:
    """What this machine has for the variants of a bundle; `runtime` stands in for the TFLite one.

    ONNX Runtime is looked for only where the bundle has ONNX variants: importing it takes a board a while.
    Raises: MissingExtra when nothing is installed, RunnerError when something cannot work.
    """
    formats: set[Format] = {variant.format for stage in manifest.stages for variant in stage.variants}
    onnx = find_onnx_runtime(provider) if "onnx" in formats else None
    if runtime is not None:
        return Runtimes(runtime, onnx)
    if "tflite" not in formats:
        if onnx is None:
            raise MissingExtra(ONNX_RUNTIME, extra="onnx", needed_for="running stages")
        return Runtimes(None, onnx)
    try:
        return Runtimes(find_runtime(), onnx)
    except MissingExtra:
        if onnx is None:
            raise
        return Runtimes(None, onnx)


def require_runtime() -> None:
    """Refuse a machine that has no runtime at all. Raises: MissingExtra, RunnerError."""
    try:
        find_runtime()
    except MissingExtra:
        if find_onnx_runtime() is None:
            raise
