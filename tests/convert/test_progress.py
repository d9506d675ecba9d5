from __future__ import annotations

from edgeexit.convert.progress import ProgressLines, Step, Steps


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_step_tells_its_begin_its_parts_and_its_end() -> None:
    clock, told = Clock(), list[Step]()
    steps = Steps(told.append, clock)
    with steps.step("lower", 2) as tell:
        clock.now_s = 3.0
        tell(1)
    assert told == [Step("lower", 0, 2), Step("lower", 1, 2), Step("lower", 2, 2, "3.0 s")]
    assert [(time.step, time.duration_s) for time in steps.times] == [("lower", 3.0)]


def test_lines_are_few_and_hold_begin_and_end() -> None:
    clock, lines = Clock(), list[str]()
    write = ProgressLines(lines.append, clock=clock)
    write(Step("answer", 0, 100))
    for done in range(1, 101):
        clock.now_s += 0.1
        write(Step("answer", done, 100))
    write(Step("answer", 100, 100, "10.0 s"))
    assert 4 <= len(lines) <= 8
    assert "0/100" in lines[0]
    assert lines[-1].endswith("10.0 s")
