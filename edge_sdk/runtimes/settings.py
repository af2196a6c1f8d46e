"""How a runtime is asked to train: numbers refused before native code has them."""

from __future__ import annotations

import math
import os
from numbers import Real

from hetlora.errors import SettingsError


def check_penalty(*, pruning_decay: float, pruning_penalty: float) -> None:
    """Raise unless the numbers of HetLoRA's penalty mean something.

    Raises:
        SettingsError: a decay outside [0, 1], or a penalty that is negative or NaN.
    """
    if not (_is_number(pruning_decay) and 0 <= pruning_decay <= 1):
        raise SettingsError("pruning_decay", got=pruning_decay, expected="0 to 1")
    if not (_is_number(pruning_penalty) and pruning_penalty >= 0):
        raise SettingsError("pruning_penalty", got=pruning_penalty, expected="0 or more")


def check_learning_rate(learning_rate: float) -> None:
    """Raise unless a step can be taken at this rate.

    Raises:
        SettingsError: no number, negative, infinite or NaN.
    """
    if not (_is_number(learning_rate) and 0 <= learning_rate < math.inf):
        raise SettingsError("learning_rate", got=learning_rate, expected="a finite number of 0 or more")


def capped_threads(threads: int | None) -> int | None:
    """At most one thread a core: it is a limit, and native code would start whatever number it is given.

    Raises:
        SettingsError: below 1, or no whole number.
    """
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise SettingsError("threads", got=threads, expected="1 or more, or none given")
    return min(threads, os.cpu_count() or 1)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
