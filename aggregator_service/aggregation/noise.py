"""Gaussian noise that follows from a key, and from nothing else.

A round that is aggregated again, after a kill or by another process, has to come to the same bits: with other
noise its two results would tell more than one. SHAKE-256 of the key (FIPS 202) is the stream of random bits,
so that who lacks the key cannot tell them from chance; Box and Muller's transform (1958) makes them normal.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from aggregator_service.aggregation.stacks import Floats

BLOCK: Final = 1 << 16  # pairs of numbers that are made at a time: a megabyte of bits
_TWO_53: Final = 2.0**-53


def gaussian_noise(key: bytes, count: int) -> Floats:
    """Independent standard normal numbers (count,), float64; none is beyond 8.6, as uniforms have 53 bits."""
    result = np.empty(-(-count // 2) * 2)
    for block, start in enumerate(range(0, result.size, 2 * BLOCK)):
        part = result[start : start + 2 * BLOCK]
        half = part.size // 2
        radius, angle = _uniforms(key, block, part.size).reshape(2, half)
        radius = np.sqrt(-2.0 * np.log1p(-radius))  # of 1 - u, which is never zero
        part[:half] = radius * np.cos(2.0 * np.pi * angle)
        part[half:] = radius * np.sin(2.0 * np.pi * angle)
    return result[:count]


def _uniforms(key: bytes, block: int, count: int) -> Floats:
    """Numbers of [0, 1), each of 53 bits of the block's own stream."""
    stream = hashlib.shake_256(key + block.to_bytes(8, "big")).digest(8 * count)
    bits = np.frombuffer(stream, "<u8") >> np.uint64(11)
    return bits.astype(np.float64) * _TWO_53
