"""The allocator keeps what payloads gave back."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PROGRAM = """
    import resource
    from edgeexit.transport.blocks import keep_freed_blocks

    def faults_of_a_payload():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            [bytearray(b"x" * 150_000) for _ in range(4)]
        return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 50

    keep_freed_blocks()
    faults_of_a_payload()
    print(faults_of_a_payload())
"""


def test_payloads_one_after_the_other_take_the_same_memory() -> None:
    # A process of its own: others have raised the allocator's limit here already.
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=280)
    assert float(done.stdout) < 1.0  # 600 kB are 147 pages
