"""Several processes under torchrun train as one would: equal weights, one writer, no loss by a kill."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeexit.models.vit import VisionTransformer, vit
from edgeexit.training.loop import train
from edgeexit.training.recipe import NetworkWanted, read_recipe
from edgeexit.training.schedule import TrainingConfig
from edgeexit.training.stored import read_stored

DATA = Path(__file__).parents[1] / "data"
RECIPE = DATA / "sides_recipe.py"

State = dict[str, torch.Tensor]


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind."""
    folder = tmp_path_factory.mktemp("together")
    torchrun(str(DATA / "train_together.py"), str(RECIPE), str(folder))
    return folder


def state(folder: Path, name: str) -> State:
    loaded: State = torch.load(folder / f"{name}.pt", weights_only=True)
    return loaded


def same(one: State, other: State) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_as_one(together: Path) -> None:
    folder = together
    assert same(state(folder, "plain-0"), state(folder, "plain-1"))
    recipe = read_recipe(RECIPE)
    made = recipe.network(NetworkWanted(classes=2))
    assert isinstance(made, VisionTransformer)
    fresh, alone = (vit(replace(made.config, head_dropout=0.0), seed=0) for _ in range(2))
    train(
        alone,
        recipe.data(None, lambda _: None).train(0),
        TrainingConfig(samples=320, batch_size=32),
        clock_s=iter(range(10**6)).__next__,
        progress=lambda _: None,
    )
    for name, tensor in state(folder, "plain-0").items():
        moved = (alone.state_dict()[name] - fresh.state_dict()[name]).norm()
        assert (tensor - alone.state_dict()[name]).norm() <= 0.02 * moved + 1e-6, name


@pytest.mark.process
@pytest.mark.slow
def test_a_cut_run_of_two_goes_on_to_the_same_bits(together: Path) -> None:
    folder = together
    assert same(state(folder, "whole-0"), state(folder, "whole-1"))
    assert same(state(folder, "cut-0"), state(folder, "whole-0"))
    assert same(state(folder, "cut-1"), state(folder, "whole-0"))
    assert not same(state(folder, "plain-0"), state(folder, "whole-0"))


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_learn_the_weights_of_samples_that_one_learns(together: Path) -> None:
    for constraint in ("sample", "exit", "matrix"):
        first, second, alone = (state(together, f"{constraint}-{who}") for who in ("0", "1", "alone"))
        assert same(first, second)
        for name, tensor in alone.items():  # in double precision
            assert torch.allclose(first[name], tensor, rtol=1e-6, atol=1e-9), (constraint, name)
    assert same(state(together, "weighed-0"), state(together, "weighed-1"))
    recipe = read_recipe(RECIPE)
    made = recipe.network(NetworkWanted(classes=2))
    assert isinstance(made, VisionTransformer)
    fresh = vit(replace(made.config, head_dropout=0.0), seed=0).state_dict()
    alone = state(together, "weighed-alone")
    for name, tensor in state(together, "weighed-0").items():
        moved = (alone[name] - fresh[name]).norm()
        assert (tensor - alone[name]).norm() <= 0.001 * moved + 1e-6, name


@pytest.mark.process
@pytest.mark.slow
def test_the_first_of_them_alone_writes_and_speaks(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("edgeexit")
    words = ("train", str(RECIPE), "--out", str(tmp_path / "w.safetensors"), "--epochs", "1")
    done = torchrun("--no-python", str(program), *words, "--device", "cpu", "--threads", "1")
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "w.jsonl"}
    assert read_stored(tmp_path / "w.safetensors").labels == ("left", "right")
    assert done.stderr.count("data       sides") == 1
    assert done.stderr.count("100%      256 images") == 1
    assert done.stdout.count("weights: ") == 1
