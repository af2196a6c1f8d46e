"""Keys are typed into the console's pages: where it may listen without TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetlora.cli.console import check_exposure
from hetlora.errors import SettingsError


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_no_certificate(host: str) -> None:
    check_exposure(host, None, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_other_addresses_need_one(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="in the clear"):
        check_exposure(host, None, None)
    file = tmp_path / "own.pem"
    file.touch()
    check_exposure(host, file, file)


def test_half_of_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="half of a certificate"):
        check_exposure("127.0.0.1", tmp_path, None)
    with pytest.raises(SettingsError, match="no such file"):
        check_exposure("127.0.0.1", tmp_path / "none", tmp_path / "none")
    with pytest.raises(SettingsError, match="address to listen on"):
        check_exposure("example.org", None, None)
