"""Random draws that depend on what they are for alone, so that the order of events changes none."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from benchmarks.simulation.fleet_file import Spread

# What is drawn, so that no two draws of a device share their numbers.
CAPABILITY: Final = 1
HABITS: Final = 2
SESSION: Final = 3
WORK: Final = 4


def generator(seed: int, what: int, *of: int) -> np.random.Generator:
    """The stream of one purpose of one device, or of one of its sessions."""
    return np.random.Generator(np.random.SFC64([seed, what, *of]))


def draw(rng: np.random.Generator, spread: Spread) -> float:
    """One log-normal number."""
    return spread.median * math.exp(math.log(spread.spread) * float(rng.standard_normal()))


def mean_of(spread: Spread) -> float:
    """The mean of all that is drawn."""
    return spread.median * math.exp(math.log(spread.spread) ** 2 / 2)
