"""What is made in the order of its fields stands in the right ones."""

from __future__ import annotations

from threading import Event

import numpy as np

from edgeexit.bundle import Bundle
from edgeexit.decide.answer import Answer, Place
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.decision import Action, Decision, Evidence, Situation
from edgeexit.decide.guard import LEAST_MS, Guard
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.spending import Spending
from edgeexit.engine import Engine, Frame
from edgeexit.engine.frame import OpenFrame
from edgeexit.runner.protocol import StageOutput, Tensors

STAGES = 3
BUDGET_MS = 100.0
CAPTURED_MS = 1000.0
NOW_MS = 1010.0
BYTE_PRICE, ENERGY_MJ_PER_S, POWER_W, STAGE_MS = 0.25, 1000.0, 5.0, 7.0
OUTPUT = np.array([1.0, 3.0, 2.0], np.float32)


class InstantRunner:
    """Says the same at every stage, in no time."""

    @property
    def stage_count(self) -> int:
        return STAGES

    def variant(self, stage: int) -> str:
        return "f32"

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        return StageOutput({}, OUTPUT)

    def close(self) -> None:
        pass


class Shown:
    """Runs all stages, and keeps what it is shown."""

    name, anytime = "shown", True

    def __init__(self) -> None:
        self.situations: list[Situation] = []

    def decide(self, situation: Situation) -> Decision:
        self.situations.append(situation)
        done = situation.stages_done == STAGES
        return Decision(Action.EXIT, "last-exit") if done else Decision(Action.CONTINUE, "deeper")


def test_a_policy_is_shown_every_value_under_its_name(tiny_bundle: Bundle) -> None:
    shown = Shown()
    spending = Spending(byte_price=BYTE_PRICE, energy_mj_per_s=ENERGY_MJ_PER_S)
    spending.power(POWER_W)
    with Engine(
        tiny_bundle,
        InstantRunner(),
        policy=shown,
        latency=LatencyModel([STAGE_MS] * STAGES),
        budgets=FixedBudget(Budget(BUDGET_MS)),
        clock=lambda: NOW_MS,
        emit=lambda _: None,
        spending=spending,
    ) as engine:
        engine.answer(Frame(4, "still", CAPTURED_MS, np.zeros((8, 8), np.uint8)))
    last = shown.situations[-1]
    assert [each.stages_done for each in shown.situations] == [0, 1, 2, 3]
    assert last.stage_count == STAGES
    assert last.elapsed_ms == NOW_MS - CAPTURED_MS
    assert last.remaining_ms == BUDGET_MS - LEAST_MS - last.elapsed_ms
    assert last.evidence is not None
    assert last.evidence.exit == STAGES - 1
    assert last.prior_quality == tuple(
        each.calibration("f32").accuracy for each in tiny_bundle.manifest.exits
    )
    assert last.compute.median_ms(0, 1) == STAGE_MS
    assert (last.link, last.options, last.later_options, last.in_flight) == (None, (), (), None)
    assert (last.offloads, last.byte_price, last.energy_price) == (0, BYTE_PRICE, 0.0)
    assert last.stage_energy_mj == (STAGE_MS * POWER_W,) * STAGES


def test_an_answer_says_everything_under_its_name() -> None:
    emitted: list[Answer] = []
    frame = OpenFrame(
        Frame(4, "still", CAPTURED_MS, np.zeros((8, 8), np.uint8)),
        FixedBudget(Budget(BUDGET_MS)),
        clock=lambda: NOW_MS,
        emit=emitted.append,
        judge=lambda exit_index, _: Evidence(exit_index, 0.5, 6, (0.1, 0.2, 0.3)),
        link_up=lambda: True,
        wake=Event(),
        guard=Guard(),
    )
    frame.hold(1, OUTPUT, NOW_MS)
    spent = frame.spent
    spent.offloads, spent.uplink_bytes, spent.decision_us = 2, 300, [8.0, 9.0]
    spent.route.append(Decision(Action.CONTINUE, "deeper"))
    assert frame.close("certified")
    assert emitted == [
        Answer(
            frame=4,
            source="still",
            label=6,
            score=0.5,
            quality=0.2,
            output=tuple(OUTPUT.tolist()),
            exit=1,
            place=Place.DEVICE,
            captured_ms=CAPTURED_MS,
            latency_ms=NOW_MS - CAPTURED_MS,
            deadline_ms=BUDGET_MS,
            reason="certified",
            stages_run=1,
            offloads=2,
            uplink_bytes=300,
            link_up=True,
            decision_us=(8.0, 9.0),
            route=("continue:deeper",),
            network_ms=0.0,
            cut=False,
        )
    ]
