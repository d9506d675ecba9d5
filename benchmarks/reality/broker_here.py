"""A broker in whatever namespace this runs: `python -m benchmarks.reality.broker_here ADDRESS`.

It prints its kind and port, and ends with its standard input.
"""

from __future__ import annotations

import signal
import sys

from edgeexit.errors import EdgeExitError
from edgeexit.transport.broker import Broker


def main() -> None:
    """Run a broker until standard input ends, or a signal comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        # Without passwords, but in a namespace that nobody outside can reach.
        with Broker(host=sys.argv[1], insecure=True) as broker:
            print(broker.kind, broker.port, flush=True)
            sys.stdin.read()
    except EdgeExitError as error:
        sys.exit(f"{error} ({error.fix})")


if __name__ == "__main__":
    main()
