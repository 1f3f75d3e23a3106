"""Turn a text into a unit vector, without a model: its character n-grams, hashed.

Rule: equal texts give equal vectors on every machine, and texts that share n-grams are nearer than those that
do not.
"""

from __future__ import annotations

import math
from zlib import crc32

DIMENSIONS = 256
LENGTHS = (1, 2, 3)  # characters in an n-gram


def vector(text: str) -> tuple[float, ...]:
    """A vector of length 1 with ``DIMENSIONS`` numbers; the case of letters does not count."""
    folded = text.casefold().encode("utf-32-le", errors="replace")  # 4 bytes a character
    sums = [0.0] * DIMENSIONS
    for length in LENGTHS:
        for start in range(0, len(folded) - 4 * length + 1, 4):
            hashed = crc32(folded[start : start + 4 * length])
            sums[hashed % DIMENSIONS] += 1.0 if hashed & 0x8000_0000 else -1.0
    norm = math.sqrt(math.fsum(value * value for value in sums))
    if norm == 0.0:  # the empty text, and a text whose n-grams cancel out
        return (1.0, *[0.0] * (DIMENSIONS - 1))
    return tuple(value / norm for value in sums)
