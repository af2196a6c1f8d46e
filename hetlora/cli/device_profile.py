"""A device's capabilities as a file has them, by hand or of another device."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.device import CapabilityReport


def read_profile(path: Path) -> CapabilityReport:
    """Read what `hetlora probe --report --json` prints; it counts as given.

    Raises:
        SettingsError: there is no such file, or it is none of a device's capabilities.
    """
    try:
        return CapabilityReport.model_validate_json(path.read_bytes()).model_copy(update={"source": "given"})
    except OSError as error:
        raise SettingsError(f"profile {path} cannot be read", got=error.strerror) from error
    except ValidationError as error:
        raise SettingsError(
            f"profile {path} is none",
            got=faults_in_words(error.errors()),
            expected="what `hetlora probe --report --json` prints",
        ) from error
