"""What a client keeps to where its app says nothing: a file that imports nothing of what keeps to it."""

from __future__ import annotations

from typing import Final

from edge_sdk.units import MIB

DEFAULT_MAX_EXAMPLES: Final = 10_000
DEFAULT_MAX_BYTES: Final = 256 * MIB
DEFAULT_PART_BYTES: Final = MIB
