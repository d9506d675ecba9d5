"""What is believed of the goodput of the link, and how wrong its predictions were."""

from __future__ import annotations

from math import exp, log

from edgeexit.decide.residuals import ChangePoint, ResidualWindow

# How far one exchange moves the logarithm of goodput: mobile goodput changes within a second. Between
# 0.7 and 1 the development traces hardly tell a difference.
GAIN = 0.85
# Before anything was measured: 8 Mbit/s, with a prior wide enough for it to be wrong.
START_MS_PER_BYTE = 1.0e-3
# Bounds of what is believed: 80 Gbit/s to 8 bit/s.
MS_PER_BYTE_LEAST = 1e-7
MS_PER_BYTE_MOST = 1e3
# Round trips vary by about this share; transfers shorter than that are lost in it.
RTT_NOISE = 0.3
# One exchange never counts for more than a factor of e^1.5.
ERROR_CLIP = 1.5
# How far one exchange moves what is usual here: it tells of the last dozen.
USUAL_GAIN = 0.1
# Keeps the logarithm of a transfer of no bytes finite: no transfer is told from less than this.
SHORTEST_TRANSFER_MS = 0.5
# Errors with the tag of now (radio idle or awake) are used once there are this many.
TAG_MINIMUM = 5


class Goodput:
    """A level that follows what exchanges measure, with the errors that its predictions made.

    Units: ms_per_byte, time that one uplink byte takes; usual_ms_per_byte, what it took over the last
    dozen exchanges, to which a link that was slow just now tends to return.
    """

    __slots__ = ("_change", "awake", "idle", "measured", "ms_per_byte", "usual_ms_per_byte")

    def __init__(self) -> None:
        self._change = ChangePoint()
        self.measured = False
        self.ms_per_byte = START_MS_PER_BYTE
        self.usual_ms_per_byte = START_MS_PER_BYTE
        self.awake = ResidualWindow()
        """Errors of exchanges on a radio that was awake."""
        self.idle = ResidualWindow()
        """Errors of exchanges that woke it."""

    def window(self, *, idle: bool) -> ResidualWindow:
        """The errors that speak for an exchange begun now."""
        return self.idle if idle and self.idle.count >= TAG_MINIMUM else self.awake

    def learn(
        self,
        network_ms: float,
        *,
        predicted_ms: float,
        size: int,
        fixed_ms: float,
        ahead_ms: float,
        idle: bool,
    ) -> bool:
        """Take one exchange; True at a change-point, when the level begins anew from this exchange.

        Units: predicted_ms, as predicted when it was sent; fixed_ms, round trip and the reply's own way;
        ahead_ms, of bytes queued before it.
        """
        error = log(network_ms / predicted_ms)
        window = self.idle if idle else self.awake
        window.add(error)
        if idle and window.count >= TAG_MINIMUM:
            # A radio that had to wake says little about the goodput: take off what waking usually costs.
            usual = min(ERROR_CLIP, max(0.0, window.middle()))
            error -= usual
            network_ms *= exp(-usual)
        changed = self._change.watch(error)
        self.move(network_ms - fixed_ms, size, ahead_ms, fixed_ms, gain=1.0 if changed else GAIN)
        return changed

    def move(
        self, transfer_ms: float, size: int, ahead_ms: float, fixed_ms: float, *, gain: float = GAIN
    ) -> None:
        """Move towards what one transfer measured, the more the less of it may be round trip."""
        transfer_ms = max(SHORTEST_TRANSFER_MS, transfer_ms)
        first = not self.measured
        if first:
            moved = max(SHORTEST_TRANSFER_MS, transfer_ms - ahead_ms) / size
            self.measured = True
        else:
            predicted_ms = size * self.ms_per_byte + ahead_ms
            error = max(-ERROR_CLIP, min(ERROR_CLIP, log(transfer_ms / predicted_ms)))
            longer_ms = max(transfer_ms, predicted_ms)
            share = longer_ms / (longer_ms + RTT_NOISE * fixed_ms)
            moved = self.ms_per_byte * exp(gain * share * error)
        self.ms_per_byte = min(MS_PER_BYTE_MOST, max(MS_PER_BYTE_LEAST, moved))
        usual = self.ms_per_byte if first else self.usual_ms_per_byte
        self.usual_ms_per_byte = usual * (self.ms_per_byte / usual) ** USUAL_GAIN
