"""Keeps what is loaded equal to what lies in the store."""

from __future__ import annotations

import threading

from edgeexit.bundle.store import Bundle
from edgeexit.errors import BundleError, ConfigError, RunnerError
from edgeexit.gateway.loaded import LoadedBundles
from edgeexit.gateway.log import EventLog
from edgeexit.gateway.store import BundleStore

# A new bundle may wait a second for the first look at it; a look costs one stat a file.
LOOK_EVERY_S = 1.0


class StoreKeeper:
    """Looks at the store now, and again every second in a thread of its own once started.

    Loading a bundle takes as long as its interpreters and golden vectors do; adverts and requests for other
    bundles go on meanwhile.
    """

    def __init__(self, store: BundleStore, bundles: LoadedBundles, log: EventLog) -> None:
        self._store = store
        self._bundles = bundles
        self._log = log
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._store_gone = False

    def look(self) -> None:
        """Load what is new, unload what is gone. Raises: ConfigError when there is no store."""
        change = self._store.scan()
        for rejected in change.rejected:
            self._log.warning("bundle_rejected", {"path": str(rejected.path), "why": rejected.why})
        for bundle in change.removed:
            self._bundles.unload(bundle.digest)
            self._log.info("bundle_gone", {"bundle": bundle.short_digest})
        for bundle in change.added:
            self._load(bundle)

    def start(self) -> None:
        """Keep looking until stopped."""
        self._thread = threading.Thread(target=self._run, name="gateway-store", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a bundle that is just being loaded is waited for, within reason."""
        self._stopped.set()
        if self._thread is not None:
            # Loading a large bundle takes longer than a stopping gateway has.
            self._thread.join(timeout=2.0)
            self._thread = None

    def _load(self, bundle: Bundle) -> None:
        fields = {"bundle": bundle.short_digest, "name": bundle.manifest.name}
        try:
            self._bundles.load(bundle)
        except (RunnerError, BundleError) as error:
            self._log.warning("bundle_rejected", {**fields, "why": str(error)})
            return
        self._log.info("bundle_served", {**fields, "stages": bundle.manifest.stage_count})

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            self._look_unharmed()

    def _look_unharmed(self) -> None:
        try:
            self.look()
            self._store_gone = False
        except ConfigError as error:
            # What is loaded is still served: the directory may be a mount that comes back.
            if not self._store_gone:
                self._log.warning("store_gone", {"why": str(error)})
            self._store_gone = True
        except Exception as error:  # noqa: BLE001 - outermost loop of a thread that must go on
            self._log.error("store", {"error": repr(error)})
