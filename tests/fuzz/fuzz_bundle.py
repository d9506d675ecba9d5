"""Coverage-guided fuzzing of all that reads a bundle's bytes; needs `pip install 'edgeexit[fuzz]'`.

    python -m tests.fuzz.fuzz_bundle model -max_total_time=60 -rss_limit_mb=512

The first word names a target of tests/fuzz/targets.py; the others are libFuzzer's. Whatever the bytes are,
the reader takes them or raises its own typed error; anything else, more memory than allowed, or an input
that takes long, ends the run with the input that did it. `make fuzz` runs all of them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["edgeexit"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz what the first word names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        raise SystemExit(f"name what to fuzz: {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory(prefix="edgeexit-fuzz-") as corpus:
        for number, seed in enumerate(TARGETS[name].seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        # What libFuzzer finds goes to the first folder; one of the caller's own comes before the seeds.
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], TARGETS[name].run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
