"""`python -m edgeexit.device --config FILE`: the daemon as its unit starts it, light on memory."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeexit.device.config import load_config
from edgeexit.device.daemon import run_device
from edgeexit.device.log import open_log
from edgeexit.errors import BundleError, ConfigError, EdgeExitError, VariantRejected

DEFAULT_CONFIG = Path("/etc/edgeexit/config.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon.

    Exit statuses: 0 ended in order, 1 the source was lost or is not there, 2 a setting is wrong, 4 the
    bundle is refused.
    """
    parser = argparse.ArgumentParser(prog="edgeexit.device", description="Answer images by their deadline.")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="TOML file of the device")
    file: Path = parser.parse_args(arguments).config
    with open_log(os.environ):
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
