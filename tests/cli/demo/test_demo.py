"""The whole demo in a short form, as a user types it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent.parent
SECONDS = 10

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.convert, pytest.mark.broker]


def make_demo(folder: Path) -> str:
    """What `make demo` prints."""
    done = subprocess.run(
        [
            *("make", "demo", f"DEMO_SECONDS={SECONDS}"),
            f"DEMO_FLAGS=--tiny --folder {folder} --images 200",
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_the_short_demo_trains_converts_flashes_serves_and_reports(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    said = make_demo(folder)
    assert "accuracy on: test" in said
    assert "now runs" in said
    assert "already current" in said
    assert "playing raspberry-pi-4" in said
    report = json.loads((folder / "report.json").read_text())
    assert report["frames"] == report["answered"] + sum(report["dropped"].values())
    assert report["answered"] > 0
    assert set(report["baselines"]) == {"first-exit", "always-local", "always-offload"}
    assert {"sent", "used", "late", "failed"} <= set(report["offloads"])
    for name in (
        *("late", "on_time_fraction", "correct_by_deadline_fraction", "answers", "uplink_bytes"),
        *("latency_ms", "decision_us_p50"),
    ):
        assert name in report
    page = (folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page

    again = make_demo(folder)
    assert "already done" in again
    assert "already converted" in again
    # On a busy machine the gateway may not be worth asking for all of a short run.
    again_report = json.loads((folder / "report.json").read_text())
    sent = report["offloads"]["sent"] + again_report["offloads"]["sent"]
    assert sent > 0, "nothing was ever worth offloading"
