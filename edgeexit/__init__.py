"""edgeexit: vision models that answer by a deadline, on small boards, over networks that come and go."""

__version__ = "0.1.0"
