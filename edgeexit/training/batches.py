"""Where training batches come from: any batch can be made from its number alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeexit.training.clutter import Clutter, clutter_batch
from edgeexit.training.data import Samples


class BatchSource(Protocol):
    """Port: training batches, each a function of its number, so that training repeats exactly.

    Targets of a batch may also be shares of classes. Shapes: targets (B,), or (B, classes).
    """

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`, from 0."""
        ...


@dataclass(slots=True)
class ItemBatches:
    """Items in a new random order each time round, some of them mirrored left to right."""

    items: Samples
    seed: int
    # Clothes, bags and shoes stay what they are in a mirror; digits and letters do not.
    mirror: bool
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False)

    def chosen(self, number: int, size: int) -> NDArray[np.int64]:
        """Which items batch `number` is made of: consecutive ones of the shuffled rounds."""
        places = np.arange(number * size, (number + 1) * size)
        rounds, offsets = np.divmod(places, len(self.items))
        return np.array(
            [self._order(int(r))[o] for r, o in zip(rounds, offsets, strict=True)], dtype=np.int64
        )

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`."""
        return self._mirrored(self.items.take(self.chosen(number, size)), self.rng(number))

    def rng(self, number: int) -> np.random.Generator:
        """The random numbers of batch `number`, independent of every other batch's."""
        return np.random.default_rng([self.seed, 1, number])

    def _order(self, round_number: int) -> NDArray[np.int64]:
        if round_number not in self._orders:
            # A batch spans two rounds at most unless the set is smaller than the batch: keep few.
            if len(self._orders) > 8:
                self._orders.clear()
            rng = np.random.default_rng([self.seed, 0, round_number])
            self._orders[round_number] = rng.permutation(len(self.items))
        return self._orders[round_number]

    def _mirrored(self, samples: Samples, rng: np.random.Generator) -> Samples:
        if not self.mirror:
            return samples
        flip = rng.random(len(samples)) < 0.5
        images = samples.images.copy()
        images[flip] = images[flip, :, :, ::-1]
        return Samples(images=images, targets=samples.targets, name=samples.name)


@dataclass(slots=True)
class ClutterBatches(ItemBatches):
    """Canvases made anew for every batch: no two rounds show an item in the same surroundings."""

    clutter: Clutter = field(kw_only=True)

    def batch(self, number: int, size: int) -> Samples:
        """Batch `number`."""
        rng = self.rng(number)
        return self._mirrored(clutter_batch(self.items, self.chosen(number, size), self.clutter, rng), rng)
