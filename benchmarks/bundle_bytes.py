"""What of a bundle goes over the line, before the first round of a device."""

from __future__ import annotations

from collections.abc import Collection

from hetlora.bundle import Bundle
from hetlora.manifest import MANIFEST_NAME


def bundle_bytes(bundle: Bundle, names: Collection[str]) -> int:
    """What the manifest of a bundle takes, and with it these of its files."""
    files = sum(bundle.manifest.files[name].size_bytes for name in names)
    return files + bundle.path(MANIFEST_NAME).stat().st_size
