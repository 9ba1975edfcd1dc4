"""
The delays between attempts to connect, as the JavaScript client computes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Backoff"]

# From here on each delay is the longest: 2 ** 64 seconds exceed any.
_MANY = 64


class Backoff:
    """
    Delays that double with each attempt, with a random part.

    :param first: seconds.
    :param last: seconds that no delay exceeds.
    :param jitter: the random part, from 0 to 1.
    :param random: returns a number from 0 to 1, without 1.
    :ivar attempts: the delays taken since :meth:`reset`.
    """

    def __init__(self, first: float, last: float, jitter: float, random: Callable[[], float]) -> None:
        self._first = first
        self._last = last
        self._jitter = jitter
        self._random = random
        self.attempts = 0

    def reset(self) -> None:
        """Begin with the first delay again."""
        self.attempts = 0

    def next(self) -> float:
        """Return the next delay in seconds."""
        milliseconds = self._first * 1000 * 2.0 ** min(self.attempts, _MANY)
        self.attempts += 1
        if self._jitter:
            # The sign and the size of the deviation come from the same random number, as in JavaScript.
            random = self._random()
            deviation = math.floor(random * self._jitter * milliseconds)
            milliseconds += deviation if math.floor(random * 10) & 1 else -deviation
        return math.floor(min(milliseconds, self._last * 1000)) / 1000
