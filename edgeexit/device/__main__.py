"""`python -m edgeexit.device --config FILE`: the daemon as its unit starts it, light on memory."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeexit.device.config import load_config
from edgeexit.device.daemon import run_device
from edgeexit.errors import BundleError, ConfigError, EdgeExitError, VariantRejected

DEFAULT_CONFIG = Path("/etc/edgeexit/config.toml")

# Syslog priorities, which journald reads from the beginning of a line.
_PRIORITIES = {logging.WARNING: "<4>", logging.ERROR: "<3>", logging.CRITICAL: "<2>"}


class _JournalFormatter(logging.Formatter):
    """Lines with their priority in front; journald adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        return _PRIORITIES.get(record.levelno, "<6>") + super().format(record)


def open_log(environment: Mapping[str, str]) -> None:
    """Send the log to stderr, in the form that its reader expects."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environment:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("edgeexit")
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon.

    Exit statuses: 0 ended in order, 1 the source was lost or is not there, 2 a setting is wrong, 4 the
    bundle is refused.
    """
    parser = argparse.ArgumentParser(prog="edgeexit.device", description="Answer images by their deadline.")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="TOML file of the device")
    file: Path = parser.parse_args(arguments).config
    open_log(os.environ)
    try:
        return run_device(load_config(file, environment=os.environ), config_file=file)
    except EdgeExitError as error:
        log = logging.getLogger("edgeexit")
        log.error("%s%s", error, "" if error.fix is None else f" ({error.fix})")
        if isinstance(error, BundleError | VariantRejected):
            return 4
        return 2 if isinstance(error, ConfigError) else 1


if __name__ == "__main__":
    sys.exit(main())
