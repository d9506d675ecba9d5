"""Stages as ONNX files, run by ONNX Runtime: on the processor, or on a GPU where that is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import DType, TensorSpec, Variant
from edgeexit.bundle.onnx import output_name
from edgeexit.bundle.store import Bundle
from edgeexit.errors import ConfigError, MissingExtra, RunnerError, ShapeError
from edgeexit.runner.litert import given_by
from edgeexit.runner.protocol import StageOutput, Tensor, Tensors

ONNX_RUNTIME = "onnxruntime"

Provider = Literal["cpu", "cuda", "tensorrt"]
"""What ONNX Runtime may compute with."""

_PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# TensorRT leaves what it cannot run to CUDA, and CUDA to the processor.
_BEHIND: dict[Provider, tuple[Provider, ...]] = {
    "cpu": ("cpu",),
    "cuda": ("cuda", "cpu"),
    "tensorrt": ("tensorrt", "cuda", "cpu"),
}
_TYPES: dict[DType, str] = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int8": "tensor(int8)",
    "uint8": "tensor(uint8)",
    "int32": "tensor(int32)",
}
# A ViT-Base in floats takes 340 MB, and tensors of its size some 10 MB more.
MOST_MEMORY_BYTES = 2**31
# Errors alone: a session warns of every initializer that it folds away.
_ERRORS_ONLY = 3


class _Node(Protocol):
    """An input or output of a session."""

    name: str
    shape: Sequence[int | str | None]
    type: str


class Session(Protocol):
    """What is used of an inference session."""

    def get_inputs(self) -> Sequence[_Node]:
        """What it takes."""
        ...

    def get_outputs(self) -> Sequence[_Node]:
        """What it gives."""
        ...

    def get_providers(self) -> Sequence[str]:
        """What it computes with, the first one preferred."""
        ...

    def run(
        self, output_names: Sequence[str], input_feed: Mapping[str, NDArray[np.generic]]
    ) -> Sequence[NDArray[np.generic]]:
        """Run the graph."""
        ...


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """The ONNX Runtime of this machine: its version, and what it was asked to compute with, best first."""

    version: str
    providers: tuple[str, ...]

    @property
    def name(self) -> str:
        """What measurements made with it hold for."""
        return f"{ONNX_RUNTIME} {self.version} {self.providers[0]}"

    def session(self, model: Path, threads: int) -> Session:
        """Open a file. Raises: RunnerError."""
        import onnxruntime

        _bound_memory()
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take the processor from everything else on a board.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        try:
            made = cast(
                "Session",
                onnxruntime.InferenceSession(
                    str(model), sess_options=options, providers=list(self.providers)
                ),
            )
        except Exception as error:  # its errors have no base of their own
            raise RunnerError(f"{model.name} cannot be loaded", why=f"{self.name}: {error}") from error
        if self.providers[0] not in made.get_providers():
            # It would go on with the processor, and say so in its log alone.
            raise RunnerError(
                f"{model.name} cannot be loaded",
                why=f"{self.providers[0]} does not start here: a library of its is missing",
                fix="install the libraries that this version of onnxruntime-gpu names, or ask for cpu",
            )
        return made


def most_memory_bytes() -> int:
    """What one session may take, weights and tensors together: no more than half of what there is here."""
    return min(MOST_MEMORY_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


def _bound_memory() -> None:
    """Give the session made next an allocator with a cap: small constants can make tensors of any size.

    Sessions share what is registered last, and each keeps what it began with.
    """
    import onnxruntime as ort

    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = {
        "max_mem": most_memory_bytes(),
        # Grown by as much as is asked for, never to the next power of two, so that the cap is the cap.
        "arena_extend_strategy": 1,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    ort.create_and_register_allocator(info, ort.OrtArenaCfg(settings))


def find_onnx_runtime(wanted: Provider = "cpu") -> OnnxRuntime | None:
    """ONNX Runtime as it is asked for; None where it is not installed.

    Raises: RunnerError when it is installed without what is wanted, ConfigError.
    """
    if wanted not in _PROVIDERS:
        raise ConfigError(
            f"there is no provider {wanted!r}",
            key="provider",
            why=f"known: {', '.join(get_args(Provider))}",
        )
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == ONNX_RUNTIME:
            return None
        raise _broken(error) from error
    except ImportError as error:  # a shared library that this system lacks
        raise _broken(error) from error
    present: Sequence[str] = onnxruntime.get_available_providers()
    name = _PROVIDERS[wanted]
    if name not in present:
        raise RunnerError(
            f"{ONNX_RUNTIME} {onnxruntime.__version__} cannot compute with {wanted}",
            why=f"this build of it has {', '.join(present)}",
            fix="pip install onnxruntime-gpu in its place, or ask for cpu",
        )
    chain = (_PROVIDERS[each] for each in _BEHIND[wanted])
    return OnnxRuntime(onnxruntime.__version__, tuple(each for each in chain if each in present))


def require_onnx_runtime(*, extra: str, needed_for: str) -> OnnxRuntime:
    """The one on the processor. Raises: MissingExtra, RunnerError."""
    found = find_onnx_runtime()
    if found is None:
        raise MissingExtra(ONNX_RUNTIME, extra=extra, needed_for=needed_for)
    return found


class OnnxStage:
    """One stage in one variant, open; its outputs are asked for in one order, once decided."""

    __slots__ = ("_inputs", "_names", "_outputs", "_session", "stage", "variant")

    def __init__(
        self, *, stage: int, variant: Variant, session: Session, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """`outputs` are those of the next boundary, then the exit's."""
        self.stage = stage
        self.variant = variant
        self._session = session
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._names = [output_name(name) for name in outputs]

    def run(self, tensors: Tensors) -> StageOutput:
        """Run the stage. Raises: RunnerError."""
        try:
            feed = {name: _native(tensors[name]) for name in self._inputs}
        except KeyError as error:
            raise RunnerError(
                f"stage {self.stage} cannot run", stage=self.stage, why=f"tensor {error} was not given"
            ) from error
        try:
            given = self._session.run(self._names, feed)
        except Exception as error:  # its errors have no base of their own
            raise RunnerError(f"stage {self.stage} failed", stage=self.stage, why=str(error)) from error
        output = cast("NDArray[np.float32]", given[-1])
        boundary = dict(zip(self._outputs[:-1], given[:-1], strict=True))
        return StageOutput(boundary, output[0])  # (1, C) -> (C,)


def load_onnx_stage(
    bundle: Bundle, stage: int, variant: Variant, *, runtime: OnnxRuntime, threads: int
) -> OnnxStage:
    """Load one variant of a stage and hold its tensors against the manifest.

    Raises: RunnerError, ShapeError, MissingFile, UnsafePath.
    """
    manifest = bundle.manifest
    model = bundle.blob_path(variant.blob)
    if variant.format != "onnx" or ONNX_RUNTIME not in variant.runtimes:
        raise RunnerError(
            f"stage {stage}, variant {variant.name} cannot be loaded",
            stage=stage,
            why=f"{ONNX_RUNTIME} does not run it: it is for {', '.join(variant.runtimes)}",
            fix="use another variant or another runtime",
        )
    try:
        session = runtime.session(model, threads)
    except RunnerError as error:
        raise RunnerError(
            f"stage {stage}, variant {variant.name} cannot be loaded",
            stage=stage,
            why=error.why,
            fix=error.fix,
        ) from error
    inputs, outputs = manifest.boundaries[stage].tensors, given_by(manifest, stage)
    wanted, found = named(inputs, outputs), tensors_of(session)
    if wanted != found:
        raise ShapeError(
            file=variant.blob.file, stage=stage, expected=", ".join(wanted), got=", ".join(found)
        )
    return OnnxStage(
        stage=stage,
        variant=variant,
        session=session,
        inputs=[spec.name for spec in inputs],
        outputs=[spec.name for spec in outputs],
    )


def named(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[str]:
    """What a session of a stage must take and give, as `tensors_of` tells it."""
    taken = sorted(f"{spec.name}{list(spec.shape)} {_TYPES[spec.dtype]}" for spec in inputs)
    given = sorted(f"{output_name(spec.name)}{list(spec.shape)} {_TYPES[spec.dtype]}" for spec in outputs)
    return [*taken, *given]


def tensors_of(session: Session) -> list[str]:
    """What a session takes and gives: names, shapes and types."""
    ends = (session.get_inputs(), session.get_outputs())
    return [
        text
        for nodes in ends
        for text in sorted(f"{node.name}{list(node.shape)} {node.type}" for node in nodes)
    ]


def _native(tensor: Tensor) -> Tensor:
    """The same numbers in this machine's order of bytes, which the runtime takes for granted."""
    return tensor if tensor.dtype.isnative else tensor.astype(tensor.dtype.newbyteorder("="))


def _broken(error: ImportError) -> RunnerError:
    return RunnerError(
        f"{ONNX_RUNTIME} is installed but cannot be imported", why=str(error), fix=f"reinstall {ONNX_RUNTIME}"
    )
