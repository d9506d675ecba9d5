"""The table and the plot of docs/reality_check.md, out of the result that was published.

    python -m benchmarks.reality.page

It replaces what stands between the page's two marks, and writes reality_check.svg beside the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import msgspec

from benchmarks.reality.compare import QUANTILES, Compared
from benchmarks.reality.rows import Row, SubjectFigures
from benchmarks.results import RESULTS
from edgeexit.errors import DataError
from edgeexit.replay.canvas import DEVICE, GATEWAY, drawing

RESULT = RESULTS / "reality_check.json"
PAGE = Path(__file__).parent.parent.parent / "docs" / "reality_check.md"
BEGIN = "<!-- made by python -m benchmarks.reality.page -->"
END = "<!-- until here -->"


class Published(msgspec.Struct, frozen=True):
    """What a page needs of the result."""

    scenarios: tuple[Row, ...]
    subjects: dict[str, SubjectFigures]


def tables(result: Published) -> str:
    """The page's tables, in Markdown."""
    lines: list[str] = []
    for row in result.scenarios:
        verdict = "agrees" if row.agrees else "**differs**"
        lines += [
            f"### {row.name}: {verdict}",
            f"{row.link}; {row.real.frames} frames in {row.seconds:g} s.",
            "",
            "| | real | replay | single replays | outside their range by | bound "
            "| replay, stages measured apart | outside by |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for each, other in zip(row.compared, row.compared_apart, strict=True):
            # Which exit is furthest apart may differ between the two.
            same = each.figure == other.figure
            apart = f"{_number(other.replayed)} | {_outside(other)}" if same else "– | –"
            lines.append(
                f"| {each.figure}, {each.unit} | {_number(each.real)} | {_number(each.replayed)} "
                f"| {_number(each.low)} to {_number(each.high)} "
                f"| {_outside(each)} | {_number(each.bound)} | {apart} |"
            )
        lines.append("")
    lines += [
        "### What disturbed the runs",
        "",
        "| | shaper's latest packet, ms | packets over 4 ms late | stolen by the host "
        "| timer late, ms, median | nine tenths | payload after a pause, ms more | by arithmetic |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result.scenarios:
        pause = "–" if row.after_pause_ms is None else _number(row.after_pause_ms)
        lines.append(
            f"| {row.name} | {row.worst_lateness_ms:.1f} | {100 * row.late_share:.2f} % "
            f"| {100 * row.stolen_share:.1f} % "
            f"| {_number(row.waking_ms[0])} | {_number(row.waking_ms[1])} "
            f"| {pause} | {_number(row.expected_after_pause_ms)} |"
        )
    lines += [
        "",
        *_stages(result),
        "",
        "### What was late, and by what",
        "",
        "Of all frames, %, real and in replay:",
        "",
    ]
    fates = sorted({fate for row in result.scenarios for fate in (*row.real.late_by, *row.replayed.late_by)})
    lines.append("| | " + " | ".join(fates) + " |")
    lines.append("|---" * (len(fates) + 1) + "|")
    for row in result.scenarios:
        both = (
            f"{_share(row.real.late_by, fate)} and {_share(row.replayed.late_by, fate)}" for fate in fates
        )
        lines.append(f"| {row.name} | " + " | ".join(both) + " |")
    lines += ["", "### What each measured overhead explains", ""]
    lines += ["Mean latency of reality less that of a replay that is not charged with it, absolute, ms:", ""]
    charges = list(result.scenarios[0].without)
    lines.append("| | all charged | " + " | ".join(f"no {name}" for name in charges) + " |")
    lines.append("|---" * (len(charges) + 2) + "|")
    for row in result.scenarios:
        whole = abs(row.real.latency_mean_ms - row.replayed.latency_mean_ms)
        apart = " | ".join(_number(row.without[name]) for name in charges)
        lines.append(f"| {row.name} | {_number(whole)} | {apart} |")
    lines += ["", *_parting(result), "", "### What the replay was given, measured before the runs", ""]
    return "\n".join([*lines, *_given(result.subjects)])


def _stages(result: Published) -> list[str]:
    lines = ["### Stages before, within and after the runs", ""]
    lines += ["Medians of what the daemon needed, ms, stage by stage:", ""]
    columns = list(dict.fromkeys(column for row in result.scenarios for column in row.stages))
    lines.append("| | " + " | ".join(columns) + " |")
    lines.append("|---" * (len(columns) + 1) + "|")
    for row in result.scenarios:
        cells = (_times(row.stages.get(column, ())) for column in columns)
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return lines


def _parting(result: Published) -> list[str]:
    lines = ["### Where the two part, frame by frame", ""]
    lines += ["Real less replayed, in points of all frames; the first three sum up to what is right:", ""]
    lines += [
        "| | right: late in one world only | right: another exit or place | right: the same exit "
        "| sent for real only | sent in replay only |",
        "|---|---|---|---|---|---|",
    ]
    for row in result.scenarios:
        each = row.apart
        lines.append(
            f"| {row.name} | {each.right_by_lateness:+.2f} | {each.right_by_exit:+.2f} "
            f"| {each.right_by_answer:+.2f} | {each.sent_really_only:.1f} | {each.sent_replayed_only:.1f} |"
        )
    lines += ["", *_inputs(result), "", "### What small errors of the inputs do", ""]
    lines += ["Points that replays then give more, offloaded and right by the deadline:", ""]
    wrong = list(result.scenarios[0].shifted)
    lines.append("| | " + " | ".join(wrong) + " |")
    lines.append("|---" * (len(wrong) + 1) + "|")
    for row in result.scenarios:
        both = (f"{row.shifted[name].offloaded:+.1f} and {row.shifted[name].right:+.1f}" for name in wrong)
        lines.append(f"| {row.name} | " + " | ".join(both) + " |")
    return lines


def _inputs(result: Published) -> list[str]:
    lines = ["### Which input makes the real device send less or more", ""]
    lines += [
        "Points of frames whose first decision is to send; then in replay, with one input as it was for real "
        "at the same frame. `repeated`: of all decisions, those that the policy repeats from its notes:",
        "",
    ]
    names = list(result.scenarios[0].inputs.taken)
    lines.append("| | real | replay | " + " | ".join(names) + " | repeated |")
    lines.append("|---" * (len(names) + 4) + "|")
    for row in result.scenarios:
        each = row.inputs
        taken = " | ".join(_number(each.taken[name]) for name in names)
        lines.append(
            f"| {row.name} | {_number(each.sent_really)} | {_number(each.sent_replayed)} "
            f"| {taken} | {100.0 * each.repeated:.2f} % |"
        )
    return lines


def _given(subjects: Mapping[str, SubjectFigures]) -> list[str]:
    names = [each.name for each in fields(SubjectFigures) if each.name != "about"]
    lines = ["| | " + " | ".join(subjects) + " |", "|---" * (len(subjects) + 1) + "|"]
    for name in names:
        values = " | ".join(_words(getattr(subject, name)) for subject in subjects.values())
        lines.append(f"| {name} | {values} |")
    return lines


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return _times(value)
    return "–" if value is None else f"{value}"


def _times(values: Sequence[float | None]) -> str:
    return ", ".join("–" if each is None else f"{each:g}" for each in values) or "–"


def _outside(each: Compared) -> str:
    return _number(each.difference) + ("" if each.agrees else " **!**")


def _share(late_by: Mapping[str, float], fate: str) -> str:
    return _number(100.0 * late_by.get(fate, 0.0))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.1f}"


def plot(result: Published) -> str:
    """Latencies of every scenario in both worlds, as distribution functions: SVG."""
    count = len(result.scenarios)
    with drawing("reality-check", rows=count, height_in=1.9 * count) as made:
        for axes, row in zip(made.axes, result.scenarios, strict=True):
            axes.plot(row.real.latency_ms, QUANTILES, color=DEVICE, label="real", linewidth=2.0)
            axes.plot(row.replayed.latency_ms, QUANTILES, color=GATEWAY, label="replay", linewidth=2.0)
            axes.set_ylabel(f"{row.name}\n% of frames")
            axes.set_ylim(0.0, 100.0)
        made.axes[0].legend(loc="lower right")
        made.axes[-1].set_xlabel("latency, capture to answer, ms")
    return made.svg


def replaced(page: str, made: str, begin: str = BEGIN, place: Path = PAGE) -> str:
    """The page with what stands between its marks replaced. Raises: DataError without the marks."""
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise DataError("the page has no marks", file=str(place), why=f"{begin} and {END} are wanted")
    return f"{before}{begin}\n{made}\n{END}{after}"


def main() -> None:
    """Write both."""
    result = msgspec.convert(json.loads(RESULT.read_text(encoding="utf-8")), Published)
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), tables(result)), encoding="utf-8")
    PAGE.with_suffix(".svg").write_text(plot(result), encoding="utf-8")


if __name__ == "__main__":
    main()
