"""The sizes of a batch, as commands are told them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from hetlora.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Shape:
    """The batch of one step, all its texts of the same length."""

    batch: int
    tokens: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `4x256`.

        Raises:
            SettingsError: anything else.
        """
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
        if found is None:
            raise SettingsError("a shape of a batch", got=text, expected="texts x tokens, such as 4x256")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.batch}x{self.tokens}"
