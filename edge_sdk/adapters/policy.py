"""When a new adapter takes the place of the one in use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from hetlora.errors import SettingsError

AdoptionPolicy = Literal["always", "if_not_worse"]


@dataclass(frozen=True, slots=True)
class Adoption:
    """When a new adapter is put in use.

    Args:
        policy: "always"; or "if_not_worse", where its loss on held-out examples is compared with that of the
            one in use. Where nothing can be compared the new one is adopted, and the report says so.
        tolerance: by how much the new loss may be above the other.
        max_seconds: how long a comparison may take, up to the batch that is under way then.

    Raises:
        SettingsError: an argument that means nothing.
    """

    policy: AdoptionPolicy = "always"
    tolerance: float = 0.0
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.policy not in get_args(AdoptionPolicy):
            raise SettingsError("policy of adoption", got=self.policy, expected=get_args(AdoptionPolicy))
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise SettingsError("tolerance of adoption", got=self.tolerance, expected="0 or more")
        if not (math.isfinite(self.max_seconds) and self.max_seconds > 0):
            raise SettingsError("max_seconds of adoption", got=self.max_seconds, expected="above 0")


ALWAYS: Final = Adoption()
