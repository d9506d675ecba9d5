"""Control groups of both versions: on trees as a kernel shows them, and on this machine's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.reality import contention
from benchmarks.reality.contention import MOUNT, PERIOD_US, PREFIX, SHARES_V1, ProcessorGroup
from benchmarks.reality.shaped_link import ROOT
from edgeexit.errors import DeviceError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of plain files, whose folders cannot be removed as a kernel's can."""
    monkeypatch.setattr(contention, "LEAVE_S", 0.0)
    return tmp_path


def written(folder: Path, name: str) -> str:
    return (folder / name).read_text()


def group_folder(parent: Path) -> Path:
    found = list(parent.glob(f"{PREFIX}*"))
    assert len(found) == 1
    return found[0]


def test_version_1_is_told_a_quota(tree: Path) -> None:
    cpu = tree / "cpu"
    cpu.mkdir()
    (cpu / "cpu.shares").write_text("1024")
    with ProcessorGroup("device", mount=tree) as group:
        folder = group_folder(cpu)
        assert written(folder, "cpu.cfs_period_us") == str(PERIOD_US)
        group.limit(0.5)
        assert written(folder, "cpu.cfs_quota_us") == str(PERIOD_US // 2)
        group.limit(None)
        assert written(folder, "cpu.cfs_quota_us") == "-1"
        assert "v1" in group.kind
        assert str(folder / "cgroup.procs") in group.words(["true"])


def test_a_burner_weighs_no_more_than_others(tree: Path) -> None:
    cpu = tree / "cpu"
    cpu.mkdir()
    (cpu / "cpu.shares").write_text("1024")
    with ProcessorGroup("burner", preferred=False, mount=tree):
        assert not (group_folder(cpu) / "cpu.shares").exists()
    with ProcessorGroup("device", mount=tree):
        folders = list(cpu.glob(f"{PREFIX}*-device"))
        assert written(folders[0], "cpu.shares") == str(SHARES_V1)


def test_version_2_is_told_a_maximum(tree: Path) -> None:
    (tree / "cgroup.controllers").write_text("cpuset cpu io")
    (tree / "cgroup.subtree_control").write_text("")
    with ProcessorGroup("device", mount=tree) as group:
        assert written(tree, "cgroup.subtree_control") == "+cpu"
        folder = group_folder(tree)
        group.limit(0.5)
        assert written(folder, "cpu.max") == f"{PERIOD_US // 2} {PERIOD_US}"
        group.limit(None)
        assert written(folder, "cpu.max") == f"max {PERIOD_US}"
        assert "v2" in group.kind


def test_a_machine_without_the_controller_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as refused, ProcessorGroup("device", mount=tmp_path):
        pass
    assert refused.value.fix is not None


@pytest.mark.process
def test_a_process_in_a_group_gets_its_share_and_the_group_goes_with_it() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    with ProcessorGroup("test") as group:
        group.limit(0.25)
        began_s = time.monotonic()
        subprocess.run(group.words(["python3", "-c", burn]), check=True)
        taken_s = time.monotonic() - began_s
    # A quarter of a core cannot do 0.3 s of work in much less than 1.2 s, however idle the machine is.
    assert taken_s > 0.9
    assert not list(MOUNT.glob(f"**/{PREFIX}{os.getpid()}-*"))


@pytest.mark.process
def test_a_process_that_outlived_its_killed_run_goes_with_the_next_one() -> None:
    script = (
        "import os, subprocess\n"
        "from benchmarks.reality.contention import ProcessorGroup\n"
        "group = ProcessorGroup('left').__enter__()\n"
        "words = group.words(['sh', '-c', 'echo $$; exec >/dev/null; exec sleep 600'])\n"
        "left = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)\n"
        "print(os.getpid(), left.stdout.readline(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    run, left = killed.stdout.split()
    with ProcessorGroup("next"):
        assert not list(MOUNT.glob(f"**/{PREFIX}{run}-*"))
    # A killed process that nobody has waited for has no command any more.
    command = Path(f"/proc/{left}/cmdline")
    assert not command.exists() or not command.read_bytes()
