"""Half precision as torch documents it: autocast, and a scaled loss so that no float16 gradient vanishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgeexit.errors import TrainingDiverged
from edgeexit.training.schedule import TrainingConfig

# torch starts at 65,536 and halves the scale with every overflow; below this the gradients themselves are
# no numbers, whatever they are divided by.
LEAST_SCALE = 2.0**-10


class Precision:
    """In which numbers a run computes, and one step of its optimisers in them."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.device = device
        self.dtype = half_dtype(config, device)
        self.scaler: torch.amp.GradScaler | None = None
        if self.dtype is torch.float16:
            self.scaler = torch.amp.GradScaler(device.type)

    def cast(self) -> AbstractContextManager[object]:
        """Where the forward pass runs."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def backward(self, loss: Tensor, optimizers: list[torch.optim.Optimizer]) -> None:
        """Gradients of the loss as they are, whatever it was scaled by on the way."""
        if self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        scaled: Tensor = self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            self.scaler.unscale_(optimizer)

    def step(
        self, loss: Tensor, norm: Tensor, optimizers: list[torch.optim.Optimizer], *, batch: int
    ) -> bool:
        """One step of every optimiser; False where float16 overflowed, and the next batch is scaled less.

        Raises: TrainingDiverged when loss or gradients are no numbers; the network then is as before.
        """
        lost = TrainingDiverged(loss=float(loss), gradient_norm=float(norm), batch=batch)
        if not torch.isfinite(loss):
            raise lost
        finite = bool(torch.isfinite(norm))
        if self.scaler is None:
            if not finite:
                raise lost
            for optimizer in optimizers:
                optimizer.step()
            return True
        if finite:
            for optimizer in optimizers:
                self.scaler.step(optimizer)
        self.scaler.update()
        if not finite and self.scaler.get_scale() < LEAST_SCALE:
            raise lost
        return finite

    def state(self) -> dict[str, object]:
        """For a snapshot."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def take(self, state: dict[str, object]) -> None:
        """From a snapshot. Raises: RuntimeError, KeyError when it is not of such a run."""
        if self.scaler is not None:
            self.scaler.load_state_dict(state)


def half_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """The half precision of a run; None for float32."""
    if not config.mixed_precision:
        return None
    if config.half is not None:
        return torch.bfloat16 if config.half == "bfloat16" else torch.float16
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def may_round_products(config: TrainingConfig, device: torch.device) -> bool:
    """Whether a run may make its products of rounded factors: one on a CPU that ends by the clock.

    Its length differs from run to run anyway; one that ends by samples keeps its bits.
    """
    by_clock = config.seconds is not None and device.type == "cpu"
    return by_clock and config.mixed_precision and config.half is None


@contextmanager
def rounded_products(wanted: bool) -> Iterator[None]:
    """Within it, factors of matrix products may be rounded to bfloat16; sums and results stay float32.

    Processors with instructions for it train half as fast again or better; others compute as ever. Torch's
    own setting for the whole process is put back at the end.
    """
    if not wanted:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        # The fused attention for CPUs makes many small products, each rounded and packed anew: three times
        # slower under this setting than the plain way, which is as fast without it.
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def gradient_norm(stages: nn.ModuleList, clip_norm: float | None) -> Tensor:
    """Norm of all gradients, clipped to at most `clip_norm` where one is given. Shapes: ()."""
    limit = float("inf") if clip_norm is None else clip_norm
    return nn.utils.clip_grad_norm_(stages.parameters(), limit)
