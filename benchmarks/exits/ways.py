"""Ways to train one network with four exits, on the same canvases in as many updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.exits.settings import Settings
from edgeexit.training.loop import TrainingConfig
from edgeexit.training.map_matching import MapMatching
from edgeexit.training.methods import BackboneFirst, FrozenBackbone, Joint, LayerWise
from edgeexit.training.objective import Objective, SelfDistillation
from edgeexit.training.sample_weighting import SampleWeighting
from edgeexit.training.schedule import OptimizerKind

# L2W-DEN's pseudo-update is a step of SGD with momentum. From fresh weights SGD brings a ViT nowhere in so
# few steps (29 % where Muon reaches 65): SGD takes over at half of the steps, for L2W-DEN and for the plain
# joint training that it is compared with alike. Best rate of 0.02, 0.1 and 0.4 by the last exit held out:
# 53, 57 and 57 %, the first exit 51, 55 and 49 %.
WARM_SHARE = 0.5
SGD_RATE = 0.1
SGD_DECAY = 1e-4
# The source adds the losses of exits where the joint loss is their mean: with this many exits, a rate so
# many times smaller, a decay and a limit so many times larger make the two the same but for the weights.
EXITS = 4
# The source makes some 29,000 updates of its weights at 1e-4; here there are some 250.
WEIGHTING = SampleWeighting(learning_rate=1e-3)
# How many times the CPU seconds of plain joint training L2W-DEN takes for as many canvases, measured.
WEIGHTING_COST = 3.0
# Whether teaching needs longer training than the others get: so many times the canvases.
LONGER = 3


@dataclass(frozen=True, slots=True)
class Way:
    """One way to train. `against` names the plain joint training that it is compared with, as it has the
    same optimiser.

    `taught` ways learn weights or are distilled; `weighed` splits its batches. The last optimiser sees
    `factor` times the canvases. `alone` is the backbone alone on as many canvases, None where there is none.
    """

    name: str
    words: str
    objective: Objective = field(default_factory=Objective)
    optimizer: OptimizerKind = "muon"
    against: str = "joint"
    taught: bool = False
    factor: float = 1.0
    weighed: bool = False
    alone: str | None = "alone"

    @property
    def joint(self) -> str:
        """Plain joint training by Muon on as many canvases."""
        return "joint_longer" if self.alone == "alone_longer" else "joint"


EQUAL = Joint(final_weight=1.0)
TAUGHT = SelfDistillation()

WAYS: tuple[Way, ...] = (
    Way("joint", "all exits at once, the last one counted twice"),
    Way("joint_equal", "all exits at once, each counted once", Objective(EQUAL)),
    Way(
        "frozen", "backbone alone for half of the steps, then the other exits", Objective(FrozenBackbone(0.5))
    ),
    Way("layer_wise", "stage by stage, what is done stays", Objective(LayerWise())),
    Way("backbone_first", "backbone alone for half of the steps, then jointly", Objective(BackboneFirst())),
    Way(
        "self_distillation",
        "joint, half of each early loss taught by the last exit",
        Objective(distillation=TAUGHT),
        taught=True,
    ),
    Way(
        "backbone_first_distilled",
        "backbone first, then jointly with self-distillation",
        Objective(BackboneFirst(), distillation=TAUGHT),
        taught=True,
    ),
    Way("cam_loss", "joint, each exit's map drawn to its own class map", Objective(maps=MapMatching("own"))),
    Way(
        "cam_distillation",
        "joint, early exits' maps drawn to the last exit's class map",
        Objective(maps=MapMatching("last")),
        taught=True,
    ),
    Way(
        "joint_sgd",
        "joint_equal for half of the steps, then the same by SGD",
        Objective(EQUAL),
        "sgd",
        "joint_sgd",
    ),
    Way(
        "rescaled_sgd",
        "the same, gradients of blocks divided by the exits they serve",
        Objective(EQUAL, rescale_gradients=True),
        "sgd",
        "joint_sgd",
    ),
    Way(
        "l2w_den",
        "the same, samples weighted exit by exit as L2W-DEN learns",
        Objective(EQUAL, weighting=WEIGHTING),
        "sgd",
        "joint_sgd",
        taught=True,
        weighed=True,
    ),
    Way(
        "joint_sgd_seconds",
        "joint_sgd, SGD for about as many CPU seconds as in l2w_den",
        Objective(EQUAL),
        "sgd",
        "joint_sgd",
        factor=WEIGHTING_COST,
        alone=None,
    ),
)

# The same for longer.
LONGER_WAYS: tuple[Way, ...] = (
    Way(
        "joint_longer",
        "joint, three times the canvases",
        against="joint_longer",
        factor=LONGER,
        alone="alone_longer",
    ),
    Way(
        "self_distillation_longer",
        "self_distillation, three times the canvases",
        Objective(distillation=TAUGHT),
        against="joint_longer",
        taught=True,
        factor=LONGER,
        alone="alone_longer",
    ),
)

EVERY_WAY = (*WAYS, *LONGER_WAYS)


def compared(names: Sequence[str]) -> tuple[Way, ...]:
    """The ways of these names, and those that they are compared with."""
    named = [way for way in EVERY_WAY if way.name in names]
    wanted = {name for way in named for name in (way.name, way.against, way.joint)}
    return tuple(way for way in EVERY_WAY if way.name in wanted)


def training_config(way: Way, settings: Settings, seed: int) -> TrainingConfig:
    """How a way trains; every one sees as many canvases, in as many updates, but for its factor."""
    samples = settings.network_samples
    if way.optimizer != "sgd":
        return TrainingConfig(
            int(samples * way.factor),
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=seed,
        )
    summed = EXITS if way.weighed else 1
    return TrainingConfig(
        int(samples * (1.0 - WARM_SHARE) * way.factor),
        # Learning weights splits a batch into halves and makes an update with each.
        batch_size=settings.batch_size * (2 if way.weighed else 1),
        learning_rate=SGD_RATE / summed,
        weight_decay=SGD_DECAY * summed,
        clip_norm=1.0 * summed,
        optimizer="sgd",
        seed=seed,
    )


def described(way: Way) -> list[object]:
    """What of a way decides its result, not its words."""
    objective = way.objective
    return [repr(objective), way.optimizer, way.factor, SGD_RATE if way.optimizer == "sgd" else 0.0]
