"""The one training loop: phases of a method, fitted into a budget of samples and of seconds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor, nn

from edgeexit.errors import ConfigError, DataError
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.training.activation_maps import ExitMaps
from edgeexit.training.batches import BatchSource
from edgeexit.training.methods import Joint
from edgeexit.training.objective import Objective, exit_losses, sample_losses, weighted_loss
from edgeexit.training.optimizers import MovingAverage, optimizers_for
from edgeexit.training.parts import Exits, enter_phase, has_own_head, rescale_gradients
from edgeexit.training.precision import Precision, gradient_norm, may_round_products, rounded_products
from edgeexit.training.processes import Processes
from edgeexit.training.schedule import (
    TrainingConfig,
    TrainingProgress,
    learning_rate_factor,
    spent_fraction,
)
from edgeexit.training.snapshot import Snapshot, Snapshots, load_snapshot, save_snapshot
from edgeexit.training.thread_choice import ThreadChoice
from edgeexit.training.weight_network import Half, LearnedWeights, weighted_training_loss

__all__ = ["TrainingConfig", "TrainingProgress", "learning_rate_factor", "spent_fraction", "train"]

# Reports are made this often: seldom enough to cost nothing, often enough to be seen moving.
REPORT_INTERVAL_S = 5.0


def train(
    network: MultiExitNetwork,
    source: BatchSource,
    config: TrainingConfig,
    *,
    clock_s: Callable[[], float],
    progress: Callable[[TrainingProgress], None],
    objective: Objective | None = None,
    snapshots: Snapshots | None = None,
) -> TrainingProgress:
    """Train in place, jointly unless the objective says otherwise; where it ended.

    It runs where the network is: on a GPU in mixed precision. Under torchrun every process takes its share
    of each batch. With `snapshots` a run that was killed goes on where it was, to the same bits.
    `clock_s` is a monotonic clock in seconds. The network is left in evaluation mode, what learns and what
    is frozen as before; torch's random state is left as it was.

    Raises: ConfigError when objective, configuration and network do not fit, UnsupportedModel,
    TrainingDiverged when a loss or gradient is no number; DataError when the snapshot is unusable.
    """
    learning = [(each, each.requires_grad) for each in network.stages.parameters()]
    if not any(needed for _, needed in learning):
        raise ConfigError("nothing can be trained", key="network", why="every parameter is frozen")
    device = learning[0][0].device
    processes = Processes.here()
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Each process drops out other features; with one process it is the seed itself.
        torch.manual_seed(config.seed + processes.rank)
        run: _Run | None = None
        try:
            run = _Run(network, source, config, objective or Objective(), processes, device)
            with rounded_products(may_round_products(config, device)):
                return run.through(clock_s, progress, snapshots)
        finally:
            if run is not None:
                run.close()
            torch.set_num_threads(threads)
            network.stages.eval()
            for parameter, needed in learning:
                parameter.requires_grad_(needed)
                parameter.grad = None


class _Run:
    """One training run: what it is made of, and where it is."""

    def __init__(
        self,
        network: MultiExitNetwork,
        source: BatchSource,
        config: TrainingConfig,
        objective: Objective,
        processes: Processes,
        device: torch.device,
    ) -> None:
        if processes.count > 1 and config.seconds is not None:
            raise ConfigError(
                "several processes train for samples, not seconds",
                key="seconds",
                why="their clocks would end them at different steps",
                fix="give samples",
            )
        if config.batch_size % processes.count:
            raise ConfigError(
                f"a batch of {config.batch_size} cannot be shared by {processes.count} processes",
                key="batch_size",
            )
        self.network, self.source, self.config, self.objective = network, source, config, objective
        self.processes, self.device = processes, device
        self.phases = objective.method.phases(len(network.stages), own_head=has_own_head(network))
        self.ends = [*accumulate(phase.share for phase in self.phases)]
        self.ends[-1] = 1.0
        self.trainable = frozenset(id(each) for each in network.stages.parameters() if each.requires_grad)
        self.average = None if config.ema_decay is None else MovingAverage(network.stages, config.ema_decay)
        self.exits = Exits(network)
        self.callable: nn.Module = self.exits
        self.optimizers: list[torch.optim.Optimizer] = []
        self.phase = -1
        self.number = 0
        self.precision = Precision(config, device)
        self._refuse()
        weighting, maps = objective.weighting, objective.maps
        self.weights = None if weighting is None else LearnedWeights(self.exits, weighting, processes)
        self.maps = None if maps is None else ExitMaps(network, maps)

    def _refuse(self) -> None:
        """Raises: ConfigError when parts of the objective cannot go together."""
        objective = self.objective
        if objective.weighting is None:
            return
        for key, harms, why in (
            ("optimizer", self.config.optimizer != "sgd", "its pseudo-update is a step of SGD"),
            ("method", not isinstance(objective.method, Joint), "it weighs the losses of all exits at once"),
            (
                "batch_size",
                self.config.batch_size % (2 * self.processes.count) != 0,
                "each process splits its share of a batch into halves",
            ),
            ("distillation", objective.distillation is not None, "it weighs losses of samples alone"),
            ("maps", objective.maps is not None, "it weighs losses of samples alone"),
            ("half", self.precision.scaler is not None, "its gradients of gradients cannot be scaled"),
        ):
            if harms:
                raise ConfigError("learnt sample weights do not fit this training", key=key, why=why)

    def close(self) -> None:
        """Leave the network without anything of this run."""
        if self.maps is not None:
            self.maps.close()

    def through(
        self,
        clock_s: Callable[[], float],
        progress: Callable[[TrainingProgress], None],
        snapshots: Snapshots | None,
    ) -> TrainingProgress:
        """Train to the end of the budget."""
        before_s = self._resume(snapshots)
        self.processes.agree(self.number, self.device)
        started_s = reported_s = saved_s = stepped_s = clock_s()
        recent: list[Tensor] = []
        config = self.config
        # A run that ends by the clock does as much as it can; one that ends by samples keeps its bits.
        by_clock = config.seconds is not None and self.device.type == "cpu"
        choice = ThreadChoice(torch.get_num_threads()) if by_clock else None
        state = TrainingProgress(
            samples=self.number * config.batch_size,
            fraction=spent_fraction(self.number * config.batch_size, before_s, config),
            elapsed_s=before_s,
            learning_rate=0.0,
            losses=(),
        )
        while state.fraction < 1.0:
            rate = self._rate(state.fraction)
            recent.append(self._step(rate, state.fraction))
            self.number += 1
            now_s = clock_s()
            if choice is not None:
                choice.took(now_s - stepped_s)
                torch.set_num_threads(choice.threads)
            stepped_s = now_s
            elapsed_s = before_s + now_s - started_s
            samples = self.number * config.batch_size
            state = TrainingProgress(
                samples, spent_fraction(samples, elapsed_s, config), elapsed_s, rate, state.losses
            )
            if state.fraction >= 1.0 or now_s - reported_s >= REPORT_INTERVAL_S:
                mean = torch.stack(recent).mean(dim=0)  # steps of (K,) -> K
                losses = tuple(float(loss) for loss in mean)
                state = TrainingProgress(samples, state.fraction, elapsed_s, rate, losses)
                recent.clear()
                reported_s = now_s
                if self.processes.rank == 0:
                    progress(state)
            if snapshots is not None and now_s - saved_s >= snapshots.every_s and state.fraction < 1.0:
                saved_s = now_s
                if self.processes.rank == 0:
                    save_snapshot(self._snapshot(elapsed_s), snapshots)
        if self.average is not None:
            self.average.give()
        return state

    def _rate(self, fraction: float) -> float:
        """The learning rate now; enters the next phase where it begins."""
        phase = next(i for i, end in enumerate(self.ends) if fraction < end)
        if phase != self.phase:
            self._enter(phase)
        begin = self.ends[phase - 1] if phase else 0.0
        within = (fraction - begin) / (self.ends[phase] - begin)
        return self.config.learning_rate * learning_rate_factor(within, self.config.warmup_fraction)

    def _enter(self, phase: int) -> None:
        self.phase = phase
        enter_phase(self.network, self.phases[phase], self.trainable)
        if not any(each.requires_grad for each in self.network.stages.parameters()):
            raise ConfigError(
                f"phase {self.phases[phase].name} trains nothing",
                key="method",
                why="what it trains is frozen",
            )
        self.optimizers = optimizers_for(self.network.stages, self.config)
        self.callable = self.processes.wrapped(self.exits)

    def _step(self, rate: float, fraction: float) -> Tensor:
        """One batch; the exits' losses. Shapes: (K,)."""
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        count = self.processes.count
        if count > 1:
            torch.manual_seed(self.config.seed + self.number * count + self.processes.rank)
        samples = self.source.batch(
            self.number * count + self.processes.rank, self.config.batch_size // count
        )
        images = torch.from_numpy(samples.images).to(self.device)
        targets = torch.from_numpy(samples.targets).to(self.device)
        weights = self.phases[self.phase].weights
        if self.weights is not None:
            return self._weighted_step(self.weights, images, targets, weights, rate)
        until = max(k for k, weight in enumerate(weights) if weight > 0)
        with self.precision.cast():
            outputs: list[Tensor] = self.callable(images, until)
        outputs = [output.float() for output in outputs]
        self._check(outputs, targets)
        losses = exit_losses(outputs, targets)
        distillation = self.objective.distillation
        mixed = losses if distillation is None else distillation.losses(outputs, losses)
        loss = weighted_loss(mixed, weights)
        matching = self.objective.maps
        if self.maps is not None and matching is not None and fraction >= matching.start:
            if targets.ndim != 1:
                raise ConfigError(
                    "maps are of one class, not of mixed ones",
                    key="maps",
                    why="the data have shares of classes",
                    fix="leave maps out, or the mixing of images",
                )
            loss = loss + matching.weight * self.maps.loss(targets)
        self._update(loss)
        return losses.detach()

    def _weighted_step(
        self, learnt: LearnedWeights, images: Tensor, targets: Tensor, weights: tuple[float, ...], rate: float
    ) -> Tensor:
        """One batch as two halves, each trained on with weights learnt on the other. Shapes: (K,)."""
        middle = len(images) // 2
        first = Half(images[:middle], targets[:middle])
        second = Half(images[middle:], targets[middle:])
        parts: list[Tensor] = []
        for train, meta in ((first, second), (second, first)):
            with self.precision.cast():
                if self.number % learnt.config.interval == 0:
                    factor = rate / self.config.learning_rate
                    learnt.learn(train, meta, self.optimizers[0], weights, factor)
                outputs: list[Tensor] = self.callable(train.images)
            outputs = [output.float() for output in outputs]
            self._check(outputs, train.targets)
            losses = sample_losses(outputs, train.targets)
            self._update(weighted_training_loss(losses, learnt.weights(losses), weights))
            parts.append(losses.detach().mean(dim=0))  # b K -> K
        return torch.stack(parts).mean(dim=0)  # 2 of (K,) -> K

    def _check(self, outputs: list[Tensor], targets: Tensor) -> None:
        """Raises: ConfigError when targets are not what the exits answer."""
        if targets.ndim == 2:
            if any(output.shape != targets.shape for output in outputs):
                raise ConfigError(
                    "the data do not fit the network",
                    key="classes",
                    why=f"the data have shares of {targets.shape[1]} classes, the network has"
                    f" {outputs[0].shape[1]} classes",
                    fix="build the network for as many classes as the data have",
                )
            return
        if targets.is_floating_point():
            objective = self.objective
            if (objective.distillation, objective.weighting, objective.maps) != (None, None, None):
                raise ConfigError(
                    "distillation, weighting and maps are for classes, not values",
                    key="objective",
                    why="the data have values",
                    fix="leave them out of the objective",
                )
            if any(output.shape[1] != 2 for output in outputs):
                raise ConfigError(
                    "targets are values, but the exits do not give value and spread",
                    key="data",
                    why="an exit of a regression has two outputs",
                    fix="build the network with two outputs an exit, or give data with classes",
                )
            return
        classes, largest = outputs[0].shape[1], int(targets.max())
        if largest >= classes or int(targets.min()) < 0:
            raise ConfigError(
                f"the data have a class {largest}, the network has {classes} classes",
                key="classes",
                why=f"classes are counted from 0 to {classes - 1}",
                fix="build the network for as many classes as the data have",
            )

    def _update(self, loss: Tensor) -> None:
        """Go back, and one step down. Raises: TrainingDiverged; the network then is as before the step."""
        stages = self.network.stages
        stages.zero_grad(set_to_none=True)
        self.precision.backward(loss, self.optimizers)
        if self.objective.rescale_gradients:
            rescale_gradients(self.network)
        norm = gradient_norm(stages, self.config.clip_norm)
        stepped = self.precision.step(loss.detach(), norm, self.optimizers, batch=self.number)
        if stepped and self.average is not None:
            self.average.update()

    def _snapshot(self, elapsed_s: float) -> Snapshot:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return Snapshot(
            number=self.number,
            elapsed_s=elapsed_s,
            phase=self.phase,
            model=self.network.stages.state_dict(),
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            average={} if self.average is None else self.average.tensors,
            average_steps=0 if self.average is None else self.average.steps,
            weighting={} if self.weights is None else self.weights.state(),
            scaler=self.precision.state(),
            random_states=states,
        )

    def _resume(self, snapshots: Snapshots | None) -> float:
        """Go back to a snapshot if there is one; the seconds that were spent. Raises: DataError."""
        snapshot = None if snapshots is None else load_snapshot(snapshots)
        if snapshot is None or snapshots is None:
            return 0.0
        try:
            self._enter(snapshot.phase)
            self.network.stages.load_state_dict(snapshot.model)
            for optimizer, state in zip(self.optimizers, snapshot.optimizers, strict=True):
                optimizer.load_state_dict(state)
            if self.average is not None:
                for name, tensor in self.average.tensors.items():
                    tensor.copy_(snapshot.average[name])
                self.average.steps = snapshot.average_steps
            if self.weights is not None:
                self.weights.take(snapshot.weighting)
            self.precision.take(snapshot.scaler)
            if self.processes.count == 1:  # with several, random numbers follow from the step's number
                torch.set_rng_state(snapshot.random_states[0])
                if self.device.type == "cuda":
                    torch.cuda.set_rng_state(snapshot.random_states[1], self.device)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"{snapshots.path.name} does not fit this training",
                file=str(snapshots.path),
                why=str(error).splitlines()[0],
                fix="delete it; training then begins anew",
            ) from error
        self.number = snapshot.number
        return snapshot.elapsed_s
