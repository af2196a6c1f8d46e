"""Numbers as integers modulo 2^64, in which masks are uniform and cancel exactly.

A number v becomes round(v 2^f), with the largest whole f for which count * largest * 2^f <= 2^62: a sum of
`count` vectors then lies within a quarter of the ring on either side of zero, and cannot wrap. What rounding
leaves is 2^-(f + 1) a vector: with 100 devices and `largest` 2^20, f is 35.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hetlora.errors import NonFiniteValues

Masked = NDArray[np.uint64]
ROOM_BITS: Final = 62


@dataclass(frozen=True, slots=True)
class Quantiser:
    """For sums of up to `count` vectors whose numbers are within `largest` of zero."""

    largest: float
    count: int

    @property
    def fraction_bits(self) -> int:
        """f."""
        return math.floor(ROOM_BITS - math.log2(self.largest * self.count))

    def encode(self, vector: NDArray[np.float64]) -> Masked:
        """A vector (n,) in uint64; one with a number beyond `largest` is scaled down as a whole.

        As its weight is one of its numbers, it then weighs less, and its mean stays.

        Raises:
            NonFiniteValues: a number is not finite.
        """
        peak = float(np.abs(vector).max(initial=0.0))
        if not math.isfinite(peak):
            raise NonFiniteValues("a number to be masked", got=peak, expected="a finite number")
        share = min(1.0, self.largest / peak) if peak > 0 else 1.0
        scaled = vector * (share * 2.0**self.fraction_bits)
        # What is scaled down comes to `largest` but for rounding; `count` of them have to decode.
        most = math.floor(self.largest * 2.0**self.fraction_bits)
        np.rint(scaled, out=scaled).clip(-most, most, out=scaled)
        return scaled.astype(np.int64).view(np.uint64)

    def decode(self, total: Masked) -> NDArray[np.float64]:
        """The sum (n,) that encoded vectors add up to.

        Raises:
            NonFiniteValues: a number is beyond what they can add up to: a mask is still on, or a device lied.
        """
        numbers = total.view(np.int64).astype(np.float64) * 2.0**-self.fraction_bits
        peak, most = float(np.abs(numbers).max(initial=0.0)), self.count * self.largest
        if peak > most:
            raise NonFiniteValues(
                "a number of an unmasked sum is larger than any that devices may send",
                got=f"{peak:.3g}",
                expected=f"up to {most:.3g}",
            )
        return numbers
