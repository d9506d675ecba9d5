"""Every example runs alone, as its first lines say, and shows what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# What a test below runs.
RUN = {"early_exit", "shrinking_budget", "offload_loopback", "offload_mqtt", "own_model"}

pytestmark = [pytest.mark.process, pytest.mark.litert]


def lines_of(name: str, *arguments: str, cwd: Path) -> list[str]:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run_and_listed() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == RUN
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in listed for name in names)


def test_early_exit_shows_answer_and_route(tmp_path: Path) -> None:
    answer, route = lines_of("early_exit", cwd=tmp_path)
    assert re.fullmatch(r"[a-z-]+, score [01]\.\d\d, exit [012] of 2", answer)
    assert route.startswith("continue:")
    assert "exit:" in route


def test_smaller_budgets_get_earlier_exits(tmp_path: Path) -> None:
    found = [re.search(r"exit (\d)", line) for line in lines_of("shrinking_budget", cwd=tmp_path)]
    exits = [int(each[1]) for each in found if each is not None]
    assert len(exits) == 4
    assert exits == sorted(exits, reverse=True)
    assert exits[0] > exits[-1] == 0


def test_loopback_answers_from_the_gateway_until_the_link_is_bad(tmp_path: Path) -> None:
    lines = lines_of("offload_loopback", cwd=tmp_path)
    good, slow, cut = (
        [line for line in lines if f"link {state}" in line] for state in ("good", "slow", " cut")
    )
    assert any("exit 2 on the gateway" in line for line in good)
    assert slow
    assert cut
    assert all("exit 0 on the device" in line for line in (*slow, *cut))


@pytest.mark.broker
def test_mqtt_answers_from_the_gateway_until_it_stops(tmp_path: Path) -> None:
    lines = lines_of("offload_mqtt", cwd=tmp_path)
    assert len(lines) == 8
    assert any("exit 2 on the gateway" in line for line in lines[:6])
    assert all("exit 0 on the device" in line for line in lines[6:])


@pytest.mark.convert
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_own_model_is_trained_converted_and_run(tmp_path: Path) -> None:
    lines = lines_of("own_model", "made", cwd=tmp_path)
    says = [re.findall(r"says (\d)", line) for line in lines if re.match(r"a \d: ", line)]
    assert [len(each) for each in says] == [3] * 5
    truth = [line[2] for line in lines if re.match(r"a \d: ", line)]
    assert sum(each[-1] == right for each, right in zip(says, truth, strict=True)) >= 3
    assert (tmp_path / "made" / "digits" / "manifest.json").is_file()
