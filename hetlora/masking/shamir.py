"""Shares of a secret, any `threshold` of which give it back while fewer tell nothing (Shamir, CACM 1979).

The secret is the value at 0 of a polynomial of degree threshold - 1 with random coefficients over the field
of 2^256 + 297, the smallest prime above all secrets; the share of position p is its value at p + 1.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from hetlora.errors import MalformedMessage

PRIME: Final = 2**256 + 297
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Shares of 32 bytes for positions 0 to count - 1, 33 bytes each."""
    coefficients = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_value(coefficients, position + 1).to_bytes(SHARE_BYTES) for position in range(count)]


def _value(coefficients: Sequence[int], at: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * at + coefficient) % PRIME
    return value


def joined(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret of shares by position, of which `threshold` are taken.

    Raises:
        MalformedMessage: too few; or no secret of 32 bytes has them: one is wrong.
    """
    if len(shares) < threshold:
        raise MalformedMessage("shares of a secret", got=len(shares), expected=f"{threshold} or more")
    points = {position + 1: int.from_bytes(shares[position]) for position in sorted(shares)[:threshold]}
    secret = sum(value * _at_zero(at, points) for at, value in points.items()) % PRIME
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise MalformedMessage(
            "shares that are not of one secret", got=f"those of positions {sorted(shares)}"
        )
    return secret.to_bytes(SECRET_BYTES)


def _at_zero(at: int, points: Mapping[int, int]) -> int:
    """Lagrange's basis polynomial of one point, at 0."""
    above, below = 1, 1
    for other in points:
        if other != at:
            above, below = above * other % PRIME, below * (other - at) % PRIME
    return above * pow(below, -1, PRIME) % PRIME
