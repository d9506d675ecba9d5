"""Policies that never send: the first exit, all stages, and the anytime floor."""

from __future__ import annotations

from edgeexit.decide.decision import Action, Decision, Situation

# A stage is begun when it ends in time with this probability: the floor takes no risks.
RUN_PROBABILITY = 0.95
# An answer this good is not worth improving.
STOP_QUALITY = 0.97

_CONTINUE = Decision(Action.CONTINUE, "next-stage")
_DONE = Decision(Action.EXIT, "last-exit")
_FIRST_EXIT = Decision(Action.EXIT, "first-exit")
_DEADLINE = Decision(Action.EXIT, "deadline")
_CONFIDENT = Decision(Action.EXIT, "confident")
_NO_TIME = Decision(Action.EXIT, "nothing-better-in-time")


class FirstExit:
    """Answers with exit 0, always."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Name in reports."""
        return "first-exit"

    @property
    def anytime(self) -> bool:
        """It has nothing to answer before it is done."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Run stage 0, then answer."""
        return _FIRST_EXIT if situation.evidence is not None else _CONTINUE


class AlwaysLocal:
    """Runs all K stages and answers when they are done, late or not."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Name in reports."""
        return "always-local"

    @property
    def anytime(self) -> bool:
        """It answers only when it is done."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Run the next stage while there is one."""
        return _CONTINUE if situation.stages_done < situation.stage_count else _DONE


class AnytimeLocal:
    """The floor: runs on while the next exit is expected to be better and in time; never sends."""

    __slots__ = ("_run_probability", "_stop_quality")

    def __init__(
        self, *, run_probability: float = RUN_PROBABILITY, stop_quality: float = STOP_QUALITY
    ) -> None:
        self._run_probability = run_probability
        self._stop_quality = stop_quality

    @property
    def name(self) -> str:
        """Name in reports."""
        return "anytime-local"

    @property
    def anytime(self) -> bool:
        """It answers at the deadline with what it has."""
        return True

    def decide(self, situation: Situation) -> Decision:
        """The next stage, or the answer in hand."""
        evidence = situation.evidence
        if evidence is None:
            return _CONTINUE
        done = situation.stages_done
        if situation.remaining_ms <= 0.0:
            return _DEADLINE
        if done >= situation.stage_count:
            return _DONE
        held = evidence.quality
        if held >= self._stop_quality:
            return _CONFIDENT
        for stop in range(done + 1, situation.stage_count + 1):
            if evidence.expected_quality[stop - 1] > held:
                chance = situation.compute.probability_within(done, stop, situation.remaining_ms)
                return _CONTINUE if chance >= self._run_probability else _NO_TIME
        return _CONFIDENT
