"""Devices behind a proxy: the environment's, or one that is given; with a password; one that meddles."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from certificates import NO_PIN, Authority, TlsFront
from http_proxy import HttpProxy
from relay import address_of

from edge_sdk.client import EdgeClient
from edge_sdk.identity.identity import new_identity
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.way import Way
from hetlora import testing
from hetlora.errors import (
    AuthenticationFailed,
    DependencyMissing,
    ServiceUnreachable,
    SettingsError,
    TlsPinMismatch,
)

SECRET = "s3cret-of-the-office"
MakeClient = Callable[..., EdgeClient]
Place = tuple[str, int]


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def place(http_service: testing.FakeService) -> Place:
    return address_of(http_service.url)


def test_https_goes_by_connect_and_pins_hold_through_it(
    front: TlsFront, authority: Authority, client_of: MakeClient
) -> None:
    with HttpProxy({"service.test:443": ("127.0.0.1", front.port)}) as proxy:
        given = {"ca_file": authority.ca_file, "proxy": proxy.url}
        with client_of("https://service.test", tls_pins=[front.pin], **given) as client:
            assert client.run_once().outcome == "accepted"
        assert set(proxy.asked) == {"CONNECT service.test:443"}
        assert b"check-ins" not in proxy.carried  # it carried ciphertext
        heard = len(front.heard)
        with (
            client_of("https://service.test", tls_pins=[NO_PIN], **given) as client,
            pytest.raises(TlsPinMismatch),
        ):
            client.run_once()
        assert len(front.heard) == heard


def test_proxy_that_is_reached_by_tls_itself_carries_a_pinned_service(
    front: TlsFront, authority: Authority, client_of: MakeClient
) -> None:
    with HttpProxy({"service.test:443": ("127.0.0.1", front.port)}) as inner:
        context, pin = authority.issue("proxy")
        with TlsFront(inner.url, context, pin) as proxy:
            given = {"ca_file": authority.ca_file, "proxy": proxy.url}
            with client_of("https://service.test", tls_pins=[front.pin], **given) as client:
                assert client.run_once().outcome == "accepted"
            with (
                client_of("https://service.test", tls_pins=[NO_PIN], **given) as client,
                pytest.raises(TlsPinMismatch),
            ):
                client.run_once()


def test_signatures_survive_a_proxy_that_reads_plain_http(place: Place, client_of: MakeClient) -> None:
    seen = (b"Host:", b"Via: 1.1 office\r\nX-Forwarded-For: 192.0.2.7\r\nHost:")
    with (
        HttpProxy({"service.test": place}, rewrite=[seen, (b"Accept: */*\r\n", b"")]) as proxy,
        client_of("http://service.test", proxy=proxy.url) as client,
    ):
        assert client.run_once().outcome == "accepted"
        assert proxy.asked[0] == "POST http://service.test/device/v1/check-ins"


def test_proxy_that_rewrites_addresses_is_told_as_a_signature_that_does_not_fit(
    place: Place, client_of: MakeClient
) -> None:
    rewrite = [(b" HTTP/1.1\r\n", b"?via=office HTTP/1.1\r\n")]
    with (
        HttpProxy({"service.test": place}, rewrite=rewrite) as proxy,
        client_of("http://service.test", proxy=proxy.url) as client,
        pytest.raises(AuthenticationFailed, match="signature does not fit the request and the key"),
    ):
        client.run_once()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_environment_names_the_proxy(
    front: TlsFront,
    authority: Authority,
    client_of: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    with HttpProxy({"service.test:443": ("127.0.0.1", front.port)}) as proxy:
        monkeypatch.setenv(name, proxy.url)
        with client_of("https://service.test", ca_file=authority.ca_file) as client:
            assert client.run_once().outcome == "accepted"
        assert proxy.connections > 0


def test_environment_names_who_is_reached_without_it(
    http_service: testing.FakeService, client_of: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpProxy({}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "elsewhere.test,127.0.0.1")
        with client_of(http_service.url) as client:
            assert client.run_once().outcome == "accepted"
        assert proxy.connections == 0
        with client_of(http_service.url, proxy=proxy.url) as client, pytest.raises(ServiceUnreachable):
            client.run_once()  # one that is given goes before
        assert proxy.connections > 0


def test_password_is_sent_and_never_logged(
    front: TlsFront,
    place: Place,
    authority: Authority,
    client_of: MakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hosts = {"service.test:443": ("127.0.0.1", front.port), "plain.test": place}
    with caplog.at_level(logging.DEBUG), HttpProxy(hosts, f"me:{SECRET}") as proxy:
        way = proxy.url.replace("http://", f"http://me:{SECRET}@")
        with client_of("https://service.test", proxy=way, ca_file=authority.ca_file) as client:
            assert client.run_once().outcome == "accepted"
        with client_of("http://plain.test", proxy=way) as client:
            assert client.run_once().outcome == "no_work"
    assert caplog.records
    assert SECRET not in caplog.text
    assert proxy._wanted is not None
    assert proxy._wanted.decode() not in caplog.text


@pytest.mark.parametrize("url", ["https://service.test", "http://service.test"])
def test_wrong_password_is_told_and_tried_once(
    place: Place, client_of: MakeClient, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        HttpProxy({"service.test:443": place, "service.test": place}, "me:right") as proxy,
    ):
        way = proxy.url.replace("http://", f"http://me:{SECRET}@")
        with (
            client_of(url, proxy=way) as client,
            pytest.raises(ServiceUnreachable, match="407") as caught,
        ):
            client.run_once()
        assert len(proxy.asked) == 1
    assert SECRET not in f"{caught.value} {caplog.text}"


def test_host_that_the_proxy_does_not_find_is_tried_again(client_of: MakeClient) -> None:
    with HttpProxy({}) as proxy:
        with (
            client_of("https://service.test", proxy=proxy.url) as client,
            pytest.raises(ServiceUnreachable, match="502 Bad Gateway"),
        ):
            client.run_once()
        assert len(proxy.asked) == 3


@pytest.mark.parametrize(
    "proxy", ["ftp://me:hidden@proxy.test", "http://", "http://me:hidden@", "http://[::1"]
)
def test_address_of_no_proxy_is_refused_untold(tmp_path: Path, proxy: str) -> None:
    with pytest.raises(SettingsError, match="proxy is no address of a proxy") as caught:
        _open(tmp_path, proxy)
    assert "hidden" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_address_of_no_proxy_in_the_environment_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://me:hidden@proxy.test")
    with pytest.raises(SettingsError, match="HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is no address of a proxy"):
        _open(tmp_path, None)


def test_proxy_without_a_scheme_is_http(tmp_path: Path) -> None:
    _open(tmp_path, "proxy.test:3128")


def test_socks_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DependencyMissing, match=r"a SOCKS proxy.*pip install 'httpx\[socks\]'"):
        _open(tmp_path, "socks5://proxy.test:1080")


def _open(folder: Path, proxy: str | None) -> None:
    identity = new_identity()
    with closing(Transport("https://service.test", identity, Way(proxy=proxy))):
        pass
