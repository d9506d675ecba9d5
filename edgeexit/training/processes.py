"""Several processes that train one network, as torchrun starts them; by torch's own calls only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgeexit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes train together, and which of them this is."""

    count: int = 1
    rank: int = 0

    @classmethod
    def here(cls) -> Processes:
        """Those that torch.distributed knows, if its group was initialised; else this one alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_world_size(), distributed.get_rank())

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module, or with several processes one whose gradients are the mean of theirs."""
        if self.count == 1:
            return module
        device = next(module.parameters()).device
        return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Of each tensor the mean over processes. It can be gone back through: everybody gets the mean of
        all gradients. The mean of what each then finds is the gradient of the mean of all losses.

        Shapes: any, kept, the same in every process.
        """
        if self.count == 1:
            return [*tensors]
        flat = torch.cat([each.reshape(-1) for each in tensors])  # one exchange for all of them
        parts = torch.split(_mean_over_processes(flat), [each.numel() for each in tensors])
        return [part.view_as(each) for part, each in zip(parts, tensors, strict=True)]

    def gathered(self, tensor: Tensor) -> Tensor:
        """What all processes have, by rank; nothing flows back. Shapes: (N, …) to (count N, …)."""
        if self.count == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def alike(self, module: nn.Module) -> None:
        """Give every process the first one's weights."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def agree(self, number: int, device: torch.device) -> None:
        """Make sure that all processes are at the same batch. Raises: ConfigError."""
        if self.count == 1:
            return
        ends = torch.tensor([number, -number], device=device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        most, least = int(ends[0]), -int(ends[1])
        if most != least:
            raise ConfigError(
                "the processes do not go on from the same batch",
                key="work",
                why=f"one is at batch {least}, another at {most}: not all of them see the snapshot",
                fix="give --work a folder that all machines share",
            )


class _Mean(torch.autograd.Function):
    """The mean over processes, and backwards that of their gradients."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        """Shapes: any, kept."""
        total = tensor.clone()
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        """Shapes: any, kept."""
        return _mean_over_processes(*gradients)


def _mean_over_processes(tensor: Tensor) -> Tensor:
    mean: Tensor = _Mean.apply(tensor)  # type: ignore[no-untyped-call]
    return mean


def leave_processes() -> None:
    """Leave the group that was joined; without one nothing happens."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def join_processes(device: str | None = None) -> Processes:
    """Join the group that torchrun describes in the environment; alone without torchrun.

    With GPUs each process takes the one of its local rank, unless `device` is cpu.
    """
    if not distributed.is_torchelastic_launched():
        return Processes()
    cuda = torch.cuda.is_available() and device != "cpu"
    distributed.init_process_group("nccl" if cuda else "gloo")
    if cuda:
        torch.cuda.set_device(distributed.get_node_local_rank())
    return Processes.here()
