"""What this gateway says about itself: state, load and bundles, in as many bytes as devices read."""

from __future__ import annotations

from os import urandom

import msgspec

from edgeexit.gateway.service import Load
from edgeexit.transport.adverts import ADVERT_CAP_BYTES, Advert, GatewayState, encode_advert
from edgeexit.transport.storage import abilities


class Advertiser:
    """Makes the adverts of one life of a gateway, each with a higher number than the one before."""

    def __init__(self, boot_id: str | None = None) -> None:
        self.boot_id = boot_id if boot_id is not None else urandom(8).hex()
        self._sequence = 0

    def advert(self, state: GatewayState, load: Load) -> bytes:
        """The next advert; where not all bundles fit, the last ones are left out."""
        self._sequence += 1
        whole = Advert(
            state=state,
            boot_id=self.boot_id,
            sequence=self._sequence,
            bundles=load.bundles,
            queue_depth=load.queue_depth,
            free_slots=load.free_slots,
            unpacks=tuple(sorted(abilities())),
        )
        data = encode_advert(whole)
        while len(data) > ADVERT_CAP_BYTES and whole.bundles:
            whole = msgspec.structs.replace(whole, bundles=whole.bundles[:-1])
            data = encode_advert(whole)
        return data
