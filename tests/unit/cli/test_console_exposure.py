"""Keys are typed into the console's pages: where it may listen without TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetlora.cli.console import check_certificate, check_exposure, listen
from hetlora.errors import PortInUse, SettingsError


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


def test_what_is_no_certificate_is_told_before_anything_is_served(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(SettingsError, match="cannot be served with"):
        check_certificate(junk, junk)
    check_certificate(None, None)


def test_port_that_is_taken_is_told_before_the_address_is() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(PortInUse, match="is taken"):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(SettingsError, match="cannot listen on this address"):
        listen("192.0.2.7", 0)
