"""The bundles that are loaded: for each, one runner for every request that may be served at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from edgeexit.bundle.manifest import Boundary, Packer
from edgeexit.bundle.store import Bundle
from edgeexit.runner.packing import Packers
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.transport.service_times import ServiceTimes
from edgeexit.transport.topics import digest12

# The first run of an interpreter packs weights and is several times slower than the later ones, which tell
# what a request will take; three of those are enough to start from.
WARM_UP_RUNS = 3

Clock = Callable[[], float]
RunnersOpener = Callable[[Bundle, int], tuple[Runner, ...]]
"""Opens so many runners of a bundle. Raises: RunnerError, BundleError."""
UnpackersOpener = Callable[[Bundle, tuple[Runner, ...]], tuple[Packers, ...]]
"""Opens what undoes a bundle's packers, once for each of its runners. Raises: RunnerError, BundleError."""


def no_unpackers(bundle: Bundle, runners: tuple[Runner, ...]) -> tuple[Packers, ...]:
    """For gateways that take boundaries only as they are."""
    return tuple(Packers(bundle, {}) for _ in runners)


class LoadedBundle:
    """One bundle with its runners; those not borrowed lie here."""

    def __init__(
        self, bundle: Bundle, runners: tuple[Runner, ...], unpackers: tuple[Packers, ...] = ()
    ) -> None:
        self.bundle = bundle
        # What one of them can undo all of them can: they are made of the same files on the same machine.
        self.unpacks = frozenset[tuple[int, str]]() if not unpackers else unpackers[0].codecs
        self._unpackers = list(unpackers)
        self._lock = threading.Lock()
        self._free = list(runners)
        self._retired = False

    @property
    def stage_count(self) -> int:
        """K."""
        return self.bundle.manifest.stage_count

    def boundary(self, stage: int) -> Boundary:
        """What this stage takes."""
        return self.bundle.manifest.boundaries[stage]

    def packer(self, stage: int, names: frozenset[str]) -> Packer | None:
        """The packer that made tensors of these names; None where none did that works here."""
        boundary = self.boundary(stage)
        for packer in boundary.packers or ():
            known = any((stage, codec) in self.unpacks for codec in packer.codecs)
            if known and names == {spec.name for spec in packer.tensors}:
                return packer
        return None

    def unpack(self, stage: int, packer: Packer, tensors: Tensors) -> Tensors:
        """The boundary that a packer's tensors stand for. Raises: RunnerError.

        Only for who has borrowed a runner: there are as many unpackers.
        """
        with self._lock:
            unpackers = self._unpackers.pop()
        try:
            return unpackers.run(stage, packer, tensors)
        finally:
            with self._lock:
                self._unpackers.append(unpackers)

    def borrow(self) -> Runner | None:
        """A runner for one request, to be given back; None when the bundle was unloaded meanwhile."""
        with self._lock:
            return self._free.pop() if self._free and not self._retired else None

    def give_back(self, runner: Runner) -> None:
        """End of a request. The runner of an unloaded bundle is closed here."""
        with self._lock:
            if not self._retired:
                self._free.append(runner)
                return
        runner.close()

    def retire(self) -> None:
        """Close the runners; those at work are closed when they are given back."""
        with self._lock:
            self._retired = True
            free, self._free = self._free, []
        for runner in free:
            runner.close()


class LoadedBundles:
    """All bundles that this gateway serves now.

    One thread loads and unloads; any thread finds. `count` is how many requests are served at a time.
    """

    def __init__(
        self,
        open_runners: RunnersOpener,
        *,
        count: int,
        times: ServiceTimes,
        clock: Clock,
        open_unpackers: UnpackersOpener = no_unpackers,
    ) -> None:
        self._open_runners = open_runners
        self._open_unpackers = open_unpackers
        self._count = count
        self._times = times
        self._clock = clock
        self._by_digest12: Mapping[str, LoadedBundle] = MappingProxyType({})
        self._closed = False

    @property
    def all(self) -> tuple[LoadedBundle, ...]:
        """Every loaded bundle."""
        return tuple(self._by_digest12.values())

    def find(self, short_digest: str) -> LoadedBundle | None:
        """The bundle named by the first twelve digits of its digest."""
        return self._by_digest12.get(short_digest)

    def load(self, bundle: Bundle) -> None:
        """Open runners, measure each stage, and only then serve the bundle.

        Raises: RunnerError, BundleError; nothing is served then.
        """
        runners = self._open_runners(bundle, self._count)
        try:
            for runner in runners:
                self._warm_up(bundle, runner)
            unpackers = self._open_unpackers(bundle, runners)
        except BaseException:
            for runner in runners:
                runner.close()
            raise
        loaded = LoadedBundle(bundle, runners, unpackers)
        self._replace({**self._by_digest12, digest12(bundle.digest): loaded})
        if self._closed:  # closed while this bundle was being loaded
            self.unload(bundle.digest)

    def unload(self, digest: str) -> None:
        """Stop serving a bundle; a request at work on it is finished."""
        left = dict(self._by_digest12)
        gone = left.pop(digest12(digest), None)
        self._replace(left)
        if gone is not None:
            gone.retire()
            self._times.forget(digest)

    def close(self) -> None:
        """Unload all, also what is just being loaded."""
        self._closed = True
        for loaded in self.all:
            self.unload(loaded.bundle.digest)

    def _replace(self, bundles: dict[str, LoadedBundle]) -> None:
        self._by_digest12 = MappingProxyType(bundles)

    def _warm_up(self, bundle: Bundle, runner: Runner) -> None:
        """Run every stage on zeros and keep the times of all runs but the first."""
        for stage, boundary in enumerate(bundle.manifest.boundaries):
            zeros: Tensors = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in boundary.tensors}
            runner.run(stage, zeros)
            for _ in range(WARM_UP_RUNS):
                started_ms = self._clock()
                runner.run(stage, zeros)
                now_ms = self._clock()
                self._times.observe(bundle.digest, stage, now_ms - started_ms, now_ms)
