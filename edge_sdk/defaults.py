"""What a client keeps to where its app says nothing: a file that imports nothing of what keeps to it."""

from __future__ import annotations

from typing import Final

DEFAULT_MAX_EXAMPLES: Final = 10_000
DEFAULT_MAX_BYTES: Final = 256 * 1024 * 1024
DEFAULT_PART_BYTES: Final = 1024 * 1024
