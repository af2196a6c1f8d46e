"""Gaussian noise that follows from a key, and from nothing else.

A round that is aggregated again, after a kill or by another process, has to come to the same bits: with other
noise its two results would tell more than one. SHAKE-256 of the key (FIPS 202) is the stream of random bits,
so that who lacks the key cannot tell them from chance; Box and Muller's transform (1958) makes them normal.

A true normal number may be of any size, one that is made of bits may not: what lies beyond is a sum that no
noise explains, and tells of an update for certain. So a pair's length is made of 128 bits, not of the 53 of
one float: it comes to `FARTHEST`. docs/privacy.md has what is left of that.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from aggregator_service.aggregation.stacks import Floats

Words = npt.NDArray[np.uint64]

BLOCK: Final = 1 << 16  # pairs of numbers that are made at a time: a megabyte and a half of bits
FARTHEST: Final = math.sqrt(2 * 128 * math.log(2))  # 13.3, the length of a pair of 128 zero bits
_WORDS: Final = 3  # of 64 bits, for a pair: two for its length, one for its angle


def gaussian_noise(key: bytes, count: int) -> Floats:
    """Independent standard normal numbers (count,), float64."""
    result = np.empty(-(-count // 2) * 2)
    for block, start in enumerate(range(0, result.size, 2 * BLOCK)):
        part = result[start : start + 2 * BLOCK]
        half = part.size // 2
        high, low, turn = _words(key, block, half)
        length, angle = pair_length(high, low), 2.0 * np.pi * np.ldexp(turn.astype(np.float64), -64)
        part[:half] = length * np.cos(angle)
        part[half:] = length * np.sin(angle)
    return result[:count]


def pair_length(high: Words, low: Words) -> Floats:
    """The length sqrt(-2 ln u) of a pair, for u in (0, 1] of 128 bits: the upper 64, and the lower."""
    u = np.ldexp(high.astype(np.float64), -64) + np.ldexp(low.astype(np.float64) + 1.0, -128)
    length: Floats = np.sqrt(-2.0 * np.log(np.minimum(u, 1.0)))
    return length


def _words(key: bytes, block: int, pairs: int) -> Words:
    """The block's own stream of bits, (3, pairs)."""
    stream = hashlib.shake_256(key + block.to_bytes(8, "big")).digest(8 * _WORDS * pairs)
    return np.frombuffer(stream, "<u8").reshape(_WORDS, pairs)
