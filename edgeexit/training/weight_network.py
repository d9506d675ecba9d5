"""Learning to weight samples: weights that make the network better after one step of its real optimiser.

Source: Han et al., Learning to Weight Samples for Dynamic Early-Exiting Networks, ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgeexit.training.objective import sample_losses
from edgeexit.training.parts import Exits
from edgeexit.training.processes import Processes
from edgeexit.training.sample_weighting import SampleWeighting


@dataclass(frozen=True, slots=True)
class Half:
    """Half of a batch. Shapes: images (B, C, H, W), targets (B,)."""

    images: Tensor
    targets: Tensor


class WeightNetwork(nn.Module):
    """From a sample's losses at all exits to its weights there."""

    def __init__(self, exits: int, config: SampleWeighting, processes: Processes | None = None) -> None:
        super().__init__()
        self.config = config
        self.processes = processes or Processes()
        self.fc1 = nn.Linear(exits, config.hidden_dim)
        self.fc2 = nn.Linear(config.hidden_dim, exits)

    def forward(self, losses: Tensor) -> Tensor:
        """Shapes: (B, K), kept. Nothing flows back into the losses."""
        change = torch.tanh(self.fc2(torch.relu(self.fc1(losses.detach()))))  # B K -> B hidden -> B K
        match self.config.constraint:
            case "sample":
                mean = change.mean(dim=1, keepdim=True)  # B K -> B 1
            case "exit":
                (mean,) = self.processes.mean([change.mean(dim=0, keepdim=True)])  # B K -> 1 K
            case "matrix":
                (mean,) = self.processes.mean([change.mean()])
        return 1.0 + self.config.epsilon * (change - mean)


def weighted_training_loss(losses: Tensor, weights: Tensor, exit_weights: Sequence[float]) -> Tensor:
    """Sum over exits of the mean over samples of weight times loss.

    Shapes: losses and weights (B, K), exit_weights (K,); result ().
    """
    return ((weights * losses).mean(dim=0) * losses.new_tensor(exit_weights)).sum()


def allocated_exits(confidences: Tensor, q: float) -> Tensor:
    """The exit that each sample shall leave by: the most confident ones first, in shares p_k ∝ q^k.

    Shapes: confidences (B, K); result (B,).
    """
    count, exits = confidences.shape
    shares = [q ** (k + 1) for k in range(exits)]
    left = torch.ones(count, dtype=torch.bool, device=confidences.device)
    taken = torch.full((count,), exits - 1, device=confidences.device)
    for k in range(exits - 1):
        wanted = int(count * shares[k] / sum(shares))
        chosen = confidences[:, k].masked_fill(~left, -1.0).topk(wanted).indices
        taken[chosen] = k
        left[chosen] = False
    return taken


def meta_loss(
    outputs: Sequence[Tensor], targets: Tensor, q: float, processes: Processes | None = None
) -> Tensor:
    """Sum over exits of the mean cross-entropy of the samples allocated to them; empty exits say nothing.

    Samples of all processes are allocated together; the mean of what each gets is the loss of them all.

    Shapes: outputs K of (B, classes), targets (B,); result ().
    """
    together = processes or Processes()
    sure = [output.detach().softmax(dim=1).amax(dim=1) for output in outputs]  # K of B classes -> K of B
    taken = allocated_exits(together.gathered(torch.stack(sure, dim=1)), q)  # K of B -> count B
    own = taken[together.rank * len(targets) :][: len(targets)]  # count B -> B
    total = outputs[0].new_zeros(())
    for k, output in enumerate(outputs):
        samples = int((taken == k).sum())
        if samples:
            here = own == k
            lost = F.cross_entropy(output[here], targets[here], reduction="sum")
            total = total + lost * (together.count / samples)
    return total


class LearnedWeights:
    """The weight network, how it learns, and what it says.

    Several processes with a share of each half learn what one would with the whole: they look ahead to the
    step that their mean gradient takes, and take the mean of what each finds there.
    """

    def __init__(self, exits: Exits, config: SampleWeighting, processes: Processes | None = None) -> None:
        first = next(exits.parameters())
        self.config = config
        self.exits = exits
        self.processes = processes or Processes()
        network = WeightNetwork(len(exits.stages), config, self.processes)
        self.network = network.to(first.device, first.dtype)
        self.processes.alike(self.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    @torch.no_grad()
    def weights(self, losses: Tensor) -> Tensor:
        """Weights for these losses. Shapes: (B, K), kept."""
        result: Tensor = self.network(losses)
        return result

    def learn(
        self,
        train: Half,
        meta: Half,
        main: torch.optim.Optimizer,
        exit_weights: Sequence[float],
        factor: float,
    ) -> float:
        """One step of the weight network; the meta loss before it. `factor` is that of the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        loss = self.after_step(train, meta, main, exit_weights)
        parameters = list(self.network.parameters())
        gradients = self.processes.mean(torch.autograd.grad(loss, parameters))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return float(loss.detach())

    def after_step(
        self, train: Half, meta: Half, main: torch.optim.Optimizer, exit_weights: Sequence[float]
    ) -> Tensor:
        """The meta loss that the network would have after one weighted step of its SGD, momentum included.

        The result depends on the weight network's parameters; the network itself and its running means stay.
        Shapes: result ().
        """
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
            learning = {n: p for n, p in self.exits.named_parameters() if p.requires_grad}
            outputs = functional_call(self.exits, self._buffers(), (train.images,))
            losses = sample_losses(outputs, train.targets)
            loss = weighted_training_loss(losses, self.network(losses), exit_weights)
            gradients = torch.autograd.grad(loss, list(learning.values()), create_graph=True)
            moved = sgd_step(learning, self.processes.mean(gradients), main)
            after = functional_call(self.exits, {**moved, **self._buffers()}, (meta.images,))
            return meta_loss(after, meta.targets, self.config.target_q, self.processes)

    def _buffers(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.exits.named_buffers()}

    def take(self, state: dict[str, object]) -> None:
        """From a snapshot. Raises: KeyError, TypeError, RuntimeError when it is not of such a network."""
        network, optimizer = state["network"], state["optimizer"]
        if not isinstance(network, dict) or not isinstance(optimizer, dict):
            raise TypeError("it has no weight network")
        self.network.load_state_dict(network)
        self.optimizer.load_state_dict(optimizer)

    def state(self) -> dict[str, object]:
        """For a snapshot."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}


def sgd_step(
    parameters: dict[str, nn.Parameter], gradients: Sequence[Tensor], main: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Where torch's SGD would bring the parameters with its present state, as a function of the gradients."""
    settings = {id(each): group for group in main.param_groups for each in group["params"]}
    moved: dict[str, Tensor] = {}
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        group = settings[id(parameter)]
        step = gradient + group["weight_decay"] * parameter.detach()
        buffer = main.state[parameter].get("momentum_buffer") if parameter in main.state else None
        if buffer is not None:
            step = group["momentum"] * buffer.detach().clone() + step
        moved[name] = parameter.detach() - group["lr"] * step
    return moved
