"""The fuzzer's targets on sound and on damaged inputs, in little memory, without the fuzzer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
# numpy, safetensors and msgspec take about 300 MiB of address space, mostly shared libraries; the largest
# honest input here has 42 kB.
MOST_ADDRESS_SPACE = 1536 * 2**20

# Reads damaged inputs in a process that may not take more.
BOUNDED = """
import random, resource, sys
from tests.fuzz.targets import TARGETS
target = TARGETS[sys.argv[1]]
seeds = target.seeds()
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
chance = random.Random(7)
for number in range(int(sys.argv[3])):
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        how = chance.randrange(3)
        if how == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif how == 1:  # the largest numbers there are, where lengths and shapes may stand
            data[at : at + 4] = chance.choice((b"\\xff\\xff\\xff\\x7f", b"\\xff\\xff\\xff\\xff", b"99999999"))
        else:
            del data[at:]
            data += b"\\0"
    target.run(bytes(data))
"""


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_are_taken_and_damaged_ones_raise_nothing_else(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        target.run(seed)

    @settings(max_examples=25 if name == "bundle" else 100, deadline=None)
    @given(data=st.data())
    def damaged(data: st.DataObject) -> None:
        seed = data.draw(st.sampled_from(seeds))
        cut = data.draw(st.integers(0, len(seed)))
        patch = data.draw(st.binary(max_size=12))
        target.run(seed[:cut] + patch + seed[cut + data.draw(st.integers(0, 12)) :])
        target.run(patch)

    damaged()


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_take_bounded_memory(name: str) -> None:
    count = 40 if name == "bundle" else 400
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, name, str(MOST_ADDRESS_SPACE), str(count)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
