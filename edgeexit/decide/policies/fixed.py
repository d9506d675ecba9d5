"""Policies blind to deadline, load and link: always send, and one threshold for all exits."""

from __future__ import annotations

from collections.abc import Sequence

from edgeexit.decide.decision import Action, Decision, OffloadOption, Situation

_CONTINUE = Decision(Action.CONTINUE, "next-stage")
_WAIT = Decision(Action.WAIT, "reply-awaited")
_LAST = Decision(Action.EXIT, "last-exit")
_PASSED = Decision(Action.EXIT, "over-threshold")
_NO_REPLY = Decision(Action.EXIT, "no-reply")


def option_at(options: Sequence[OffloadOption], boundary: int, codec: str | None) -> OffloadOption | None:
    """The option of a boundary with this codec; None as codec takes the smallest payload."""
    found: OffloadOption | None = None
    for option in options:
        if option.boundary != boundary:
            continue
        if codec is not None:
            if option.codec == codec:
                return option
        elif found is None or option.payload_bytes < found.payload_bytes:
            found = option
    return found


class AlwaysOffload:
    """Sends the image at once and waits for the reply; computes here only where nothing can be sent."""

    __slots__ = ("_codec",)

    def __init__(self, *, codec: str | None = None) -> None:
        self._codec = codec

    @property
    def name(self) -> str:
        """Name in reports."""
        return "always-offload"

    @property
    def anytime(self) -> bool:
        """It has nothing to answer before the reply."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Send, then wait; after a failure whatever is in hand."""
        if situation.in_flight is not None:
            return _WAIT
        if situation.offloads == 0 and situation.link is not None and situation.link.up:
            option = option_at(situation.options, 0, self._codec)
            if option is not None:
                return Decision(Action.OFFLOAD, "always", option)
        # Without a link it has no policy of its own: exit 0 is the least that still answers.
        return _NO_REPLY if situation.evidence is not None else _CONTINUE


class StaticThreshold:
    """Stops at the first exit whose score passes; blind to deadline, load and link.

    Where `local_stages` is given, only so many stages run here; if none of their exits passes, the
    image is sent and awaited (the second form).
    """

    __slots__ = ("_codec", "_local_stages", "_threshold")

    def __init__(
        self, threshold: float, *, local_stages: int | None = None, codec: str | None = None
    ) -> None:
        self._threshold = threshold
        self._local_stages = local_stages
        self._codec = codec

    @property
    def name(self) -> str:
        """Name in reports."""
        return "static-threshold" if self._local_stages is None else "static-threshold-send"

    @property
    def anytime(self) -> bool:
        """It answers only when it is done."""
        return False

    def decide(self, situation: Situation) -> Decision:
        """Threshold, then depth, then the link where that is its form."""
        evidence = situation.evidence
        if evidence is None:
            return _CONTINUE
        if situation.in_flight is not None:
            return _WAIT
        if evidence.score >= self._threshold:
            return _PASSED
        done = situation.stages_done
        if done >= situation.stage_count:
            return _LAST
        if self._local_stages is None or done < self._local_stages:
            return _CONTINUE
        if situation.offloads == 0 and situation.link is not None and situation.link.up:
            option = option_at(situation.options, 0, self._codec)
            if option is not None:
                return Decision(Action.OFFLOAD, "under-threshold", option)
        return _NO_REPLY
