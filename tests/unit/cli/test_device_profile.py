"""`--profile`: what is wrong with a file that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetlora.cli.device_profile import read_profile
from hetlora.errors import SettingsError


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"no json", "is none; got Invalid JSON"),
        (b"{}", "is none; got source: Field required; cores: Field required"),
        (b'{"cores": "secret"}', "is none; got source: Field required; cores: Input should be"),
        (None, "cannot be read; got No such file"),
    ],
)
def test_profile_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, content: bytes | None, fault: str
) -> None:
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_profile(path)
    assert fault in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
