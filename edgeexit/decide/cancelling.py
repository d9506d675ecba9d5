"""When to take a request back: its frame is answered, and the gateway need not go on with it.

What that saves is the gateway's time, which others may need; what it costs are the bytes of a message, and
the link's time for them. A late reply would have taught the link: the gateway's word that it let go of the
request says as much, for it tells how long the request was there. Audits are not taken back.
"""

from __future__ import annotations

from edgeexit.decide.decision import InFlight, LinkForecast

# Taking a cancel in and answering it costs a gateway about this much (0.1 ms a message were measured for the
# client library alone): less is not worth saving.
LEAST_MS = 0.25
# What a whole request is worth to a gateway at which nobody waits, in quality: a tenth of what others lose
# by it where the queue is as long as the request itself. Its energy, and whoever comes next.
IDLE_PRICE = 0.0001


def saved_ms(link: LinkForecast, in_flight: InFlight, *, round_trip_ms: float, compute_ms: float) -> float:
    """Computing time that a gateway is expected to be spared by a cancel that is sent now.

    A reply that comes within a round trip from now has left before the cancel arrives. Of later ones those
    within half the computing time more are counted as wholly lost, the others as wholly saved.
    Units: round_trip_ms; compute_ms, what the gateway usually needs for such a request.
    """
    gone = link.reply_probability(in_flight, round_trip_ms + 0.5 * compute_ms)
    return compute_ms * min(1.0, max(0.0, 1.0 - gone))


def worth_cancelling(
    link: LinkForecast,
    in_flight: InFlight,
    *,
    round_trip_ms: float,
    compute_ms: float,
    cancel_ms: float,
    cancel_price: float,
) -> bool:
    """Whether a request whose frame is answered should be taken back.

    Units: cancel_ms, the link's time for the cancel; cancel_price, quality that its bytes must buy.
    """
    if not (link.up and compute_ms > 0.0):
        return False
    spared_ms = saved_ms(link, in_flight, round_trip_ms=round_trip_ms, compute_ms=compute_ms)
    if spared_ms < max(LEAST_MS, cancel_ms):
        return False
    whole = IDLE_PRICE + link.request_price(in_flight.option)
    return whole * spared_ms / compute_ms >= cancel_price
