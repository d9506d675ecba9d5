"""A gateway put together, without a connection: store, runners, service."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from time import perf_counter

from edgeexit.bundle.store import Bundle
from edgeexit.errors import WireError
from edgeexit.gateway.config import GatewayConfig
from edgeexit.gateway.keeper import StoreKeeper
from edgeexit.gateway.loaded import LoadedBundles, RunnersOpener, UnpackersOpener, no_unpackers
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.service import GatewayService
from edgeexit.gateway.store import BundleStore
from edgeexit.runner.litert import LiteRTRunner, find_variant
from edgeexit.runner.loading import find_runtimes, require_runtime
from edgeexit.runner.onnx import Provider
from edgeexit.runner.packing import Packers, open_unpacking
from edgeexit.runner.protocol import Runner
from edgeexit.runner.selection import open_verified
from edgeexit.transport import wire
from edgeexit.transport.service_times import ServiceTimes
from edgeexit.transport.topics import DIGEST12, InferTopic

# What a stopping gateway waits for requests at work; a device has long gone on by itself then.
DRAIN_S = 2.0


def monotonic_ms() -> float:
    """The usual clock."""
    return perf_counter() * 1000.0


class GatewayCore:
    """Everything of a gateway but its broker: loads the store, serves frames, follows changes of the store.

    `open_runners` is how interpreters are made; by default the runtimes of this machine,
    golden vectors proved first.
    """

    def __init__(
        self,
        config: GatewayConfig,
        log: EventLog,
        *,
        clock: Callable[[], float] = monotonic_ms,
        open_runners: RunnersOpener | None = None,
    ) -> None:
        self._own_runners = open_runners is None
        times = ServiceTimes()
        opener = (
            open_runners if open_runners is not None else verified_runners(config.threads, config.provider)
        )
        unpackers = litert_unpackers(config.threads, log) if self._own_runners else no_unpackers
        self._bundles = LoadedBundles(
            opener, count=config.workers, times=times, clock=clock, open_unpackers=unpackers
        )
        store = BundleStore(config.store, bundle_limit=config.bundle_limit, trust=config.trust)
        self._keeper = StoreKeeper(store, self._bundles, log)
        self.service = GatewayService(
            self._bundles,
            times,
            workers=config.workers,
            queue_limit=config.queue_limit,
            clock=clock,
            log=log,
        )

    def __enter__(self) -> GatewayCore:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """What is served now."""
        return tuple(loaded.bundle for loaded in self._bundles.all)

    def open(self) -> None:
        """Load every valid bundle of the store, then take requests.

        Raises: ConfigError when there is no store; MissingExtra when no runtime is installed.
        """
        if self._own_runners:
            require_runtime()  # a gateway that could never run anything says so now, not at its first bundle
        self._keeper.look()
        self.service.open()
        self._keeper.start()

    def serve(self, data: bytes) -> bytes | None:
        """Answer one frame and wait for it: a gateway as a function, for a transport within one process."""
        answer: Future[bytes | None] = Future()
        try:
            header = wire.decode(data).header
        except WireError:
            return None  # who sends frames to a function knows what it sent
        topic = InferTopic(None, header.bundle_digest.hex()[:DIGEST12], header.stage_in)
        self.service.handle(data, topic, lambda reply, _: answer.set_result(reply))
        return answer.result()

    def close(self, drain_s: float = DRAIN_S) -> None:
        """Refuse what comes, finish what was taken within `drain_s`, free everything."""
        self.service.drain(drain_s)
        self.service.close()
        self._keeper.stop()
        self._bundles.close()


def verified_runners(threads: int, provider: Provider = "cpu") -> RunnersOpener:
    """Opens runners with `threads` threads an interpreter, ONNX stages with `provider`.

    Golden vectors choose the variants once for a bundle; further runners load the same ones.
    """

    def open_runners(bundle: Bundle, count: int) -> tuple[Runner, ...]:
        first, _ = open_verified(bundle, threads=threads, provider=provider)
        runtimes = find_runtimes(bundle.manifest, provider=provider)
        stages = [(k, find_variant(bundle.manifest, k, first.variant(k))) for k in first.stages]
        more = [
            LiteRTRunner.of_loaded(
                bundle,
                [runtimes.load(bundle, k, variant, threads=threads) for k, variant in stages],
                threads=threads,
            )
            for _ in range(count - 1)
        ]
        return (first, *more)

    return open_runners


def litert_unpackers(threads: int, log: EventLog) -> UnpackersOpener:
    """Opens what undoes packers, golden vectors proved with each bundle's first runner."""

    def open_unpackers(bundle: Bundle, runners: tuple[Runner, ...]) -> tuple[Packers, ...]:
        opened = tuple(open_unpacking(bundle, runner, threads=threads) for runner in runners)
        for rejected in opened[0].rejected if opened else ():
            log.warning(
                "packer_rejected",
                {
                    "bundle": bundle.short_digest,
                    "boundary": rejected.boundary,
                    "packer": rejected.packer,
                    "why": rejected.why,
                },
            )
        return opened

    return open_unpackers
