"""What is asked of the allocator so that every payload does not pay for its memory anew."""

from __future__ import annotations

# Boundaries and images are well below it. The allocator then keeps at most twice as much for later.
KEPT_BLOCK_BYTES = 4 << 20


def keep_freed_blocks(size_bytes: int = KEPT_BLOCK_BYTES) -> None:
    """Have freed blocks up to this size kept for the next ones, where the C library is glibc.

    It maps blocks over 128 kB one by one and gives them back when they are freed: a payload of 150 kB
    then costs 40 page faults at each copy, more than its way through the kernel. Freeing one mapped block
    raises that limit to its size; it is never touched, so it takes no memory. Elsewhere nothing changes.
    Source: mallopt(3), M_MMAP_THRESHOLD, the dynamic threshold.
    """
    bytearray(size_bytes)
