"""Installs the second back end before it is needed: `python -m edgeexit.convert.install`."""

from __future__ import annotations

import sys

from edgeexit.convert.environment import cache_folder
from edgeexit.convert.onnx2tf import Onnx2tf
from edgeexit.errors import EdgeExitError


def main() -> int:
    """Make its environment where it is not there yet; the exit code."""
    try:
        sys.stdout.write(f"{Onnx2tf().environment().python(cache_folder(), _tell)}\n")
    except EdgeExitError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
