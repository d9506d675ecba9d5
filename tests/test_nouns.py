"""A noun that is made quickly is the frozen dataclass that it was."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.answer import Answer
from edgeexit.decide.decision import Decision, Evidence, InFlight, OffloadOption, Situation, Stretch
from edgeexit.decide.learner import FrameClosed, Replied, Sent, StageDone
from edgeexit.engine.frame import Finding, Frame
from edgeexit.nouns import quickly_made
from edgeexit.runner.protocol import StageOutput

QUICK = [
    *(Answer, Decision, Evidence, Finding, Frame, FrameClosed, InFlight, OffloadOption, Replied),
    *(Sent, Situation, StageDone, StageOutput, Stretch),
]


@dataclass(frozen=True, slots=True)
class Slow:
    """As dataclasses makes it."""

    number: int
    name: str = "none"
    rest: tuple[float, ...] = ()


@quickly_made
@dataclass(frozen=True, slots=True)
class Quick:
    """The same, made quickly."""

    number: int
    name: str = "none"
    rest: tuple[float, ...] = ()


values = st.tuples(st.integers(), st.text(), st.lists(st.floats(allow_nan=False)).map(tuple))


@given(values, values, st.integers(1, 3))
def test_it_holds_compares_and_prints_what_it_was_given(
    one: tuple[int, str, tuple[float, ...]], other: tuple[int, str, tuple[float, ...]], named: int
) -> None:
    names = [each.name for each in fields(Slow)]
    by_name = dict(zip(names[named:], one[named:], strict=True))
    quick: object = Quick(*one[:named], **by_name)  # type: ignore[arg-type]
    slow: object = Slow(*one[:named], **by_name)  # type: ignore[arg-type]
    assert quick != slow
    assert isinstance(quick, Quick)
    assert isinstance(slow, Slow)
    assert asdict(quick) == asdict(slow)
    assert repr(quick) == repr(slow).replace("Slow", "Quick")
    assert (quick == Quick(*other)) == (one == other)
    assert hash(quick) == hash(slow)


def test_defaults_stand_where_nothing_is_given() -> None:
    assert asdict(Quick(1)) == asdict(Slow(1))
    assert inspect.signature(Quick) == inspect.signature(Slow)
    with pytest.raises(
        TypeError, match=r"Quick.__init__\(\) missing 1 required positional argument: 'number'"
    ):
        Quick()  # type: ignore[call-arg]


def test_it_survives_copying_replacing_and_pickling() -> None:
    quick = Quick(1, "one", (1.0,))
    for again in (copy.copy(quick), copy.deepcopy(quick), pickle.loads(pickle.dumps(quick)), replace(quick)):
        assert type(again) is Quick
        assert again == quick
    assert replace(quick, number=2) == Quick(2, "one", (1.0,))


def test_nobody_changes_one() -> None:
    quick = Quick(1)
    with pytest.raises(FrozenInstanceError):
        quick.number = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del quick.name
    with pytest.raises((AttributeError, TypeError)):
        quick.more = 1  # type: ignore[attr-defined]
    assert quick == Quick(1)


@pytest.mark.parametrize("noun", QUICK, ids=lambda noun: str(noun.__name__))
def test_every_noun_of_a_frame_stays_frozen(noun: type) -> None:
    names = [each.name for each in fields(noun)]
    made = noun(*range(len(names)))
    assert type(made) is noun
    assert [getattr(made, name) for name in names] == list(range(len(names)))
    with pytest.raises(FrozenInstanceError):
        setattr(made, names[0], 1)


def test_what_cannot_be_made_by_assignments_alone_is_refused() -> None:
    class Plain:
        pass

    @dataclass(frozen=True)
    class WithoutSlots:
        number: int

    @dataclass(frozen=True, slots=True)
    class Checked:
        number: int

        def __post_init__(self) -> None:
            raise AssertionError

    @dataclass(frozen=True, slots=True)
    class Further(Slow):
        more: int = 0

    @dataclass(frozen=True, slots=True)
    class Grown:
        numbers: list[int] = field(default_factory=list)

    for refused in (Plain, WithoutSlots, Checked, Further, Grown):
        with pytest.raises(TypeError):
            quickly_made(refused)
