"""Devices that insist on a key of the service's: real handshakes with a chain of three certificates."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import NO_PIN, Authority, TlsFront
from cryptography.hazmat.primitives.asymmetric import ec
from device_clock import Stop
from strong_device import STRONG
from typer.testing import CliRunner

from edge_sdk.client import EdgeClient
from edge_sdk.identity.identity import new_identity
from edge_sdk.session.visit import Visit
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.way import Way
from hetlora import testing
from hetlora.cli.main import app
from hetlora.errors import NoExamples, ServiceUnreachable, SettingsError, TlsPinMismatch

MakeClient = Callable[..., EdgeClient]


@pytest.fixture
def pinned(client_of: MakeClient, authority: Authority) -> MakeClient:
    """Makes clients that trust the authority, and take services of these pins alone."""

    def make(url: str, *pins: str, **given: Any) -> EdgeClient:
        return client_of(url, **({"ca_file": authority.ca_file, "tls_pins": pins} | given))

    return make


@pytest.mark.parametrize("whose", ["service", "deputy", "root"])
def test_one_pinned_key_anywhere_in_the_chain_will_do(
    front: TlsFront, authority: Authority, pinned: MakeClient, whose: str
) -> None:
    pins = {"service": front.pin, "deputy": authority.middle_pin, "root": authority.root_pin}
    with pinned(front.url, NO_PIN, pins[whose]) as client:
        assert client.run_once().outcome == "accepted"


def test_wrong_pin_is_told_with_what_was_seen_before_a_byte_of_a_request_leaves(
    front: TlsFront, authority: Authority, pinned: MakeClient
) -> None:
    with pinned(front.url, NO_PIN) as client, pytest.raises(TlsPinMismatch) as caught:
        client.run_once()
    seen = f"{front.pin} (CN=service), {authority.middle_pin} (CN=root's deputy), {authority.root_pin}"
    assert caught.value.code == "tls_pin_mismatch"
    assert caught.value.got == f"{seen} (CN=root)"
    assert caught.value.expected == NO_PIN
    assert front.heard == b""
    assert front.connections == 1  # it is not tried again within the visit


def test_device_with_a_wrong_pin_comes_back_as_seldom_as_to_a_service_that_is_away(
    front: TlsFront, pinned: MakeClient
) -> None:
    stop = Stop(after=10)
    with pinned(front.url, NO_PIN) as client:
        client.run_forever(stop=stop)
    assert front.connections == 10
    assert all(wait <= min(300, 5 * 2**number) for number, wait in enumerate(stop.waits))


def test_update_that_met_a_wrong_key_is_delivered_once_the_right_one_is_back(
    http_service: testing.FakeService, front: TlsFront, authority: Authority, pinned: MakeClient
) -> None:
    right = front.context
    false_context, _ = authority.issue("somebody else")
    # Check-in, enrolment, check-in, manifest, start, six files and the adapter pass; then the line is cut.
    http_service.script = [None] * 12 + [testing.CUT] * 3
    with pinned(front.url, front.pin) as client:
        with pytest.raises(ServiceUnreachable):
            client.run_once()
        front.context = false_context
        with pytest.raises(TlsPinMismatch):
            client.run_once()
        front.context = right
        http_service.requests.clear()
        assert client.run_once().outcome == "accepted"
    assert [request.rsplit("/", 1)[1] for request in http_service.requests] == [
        "check-ins",
        "update",
        "assignment-1:submit",
    ]


def test_renewed_certificate_of_the_same_key_keeps_its_pin(
    front: TlsFront, authority: Authority, pinned: MakeClient
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    front.context, pin = authority.issue("this year", key)
    with pinned(front.url, pin) as client:
        client.run_once()
    front.context, again = authority.issue("next year", key)
    assert again == pin
    with pinned(front.url, pin) as client:
        assert client.run_once().outcome == "no_work"


def test_pin_does_not_replace_the_authority(front: TlsFront, pinned: MakeClient) -> None:
    with (
        pinned(front.url, front.pin, ca_file=None) as client,
        pytest.raises(ServiceUnreachable, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.run_once()
    assert front.heard == b""


def test_pin_does_not_replace_the_host_name(front: TlsFront, pinned: MakeClient) -> None:
    with (
        pinned(front.url.replace("127.0.0.1", "localhost"), front.pin) as client,
        pytest.raises(ServiceUnreachable, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.run_once()
    assert front.heard == b""


@pytest.mark.parametrize("pin", ["", "sha256", "A" * 44, "ab" * 32, "sha256/" + NO_PIN, "-" * 43 + "="])
def test_pin_of_another_form_is_refused(tmp_path: Path, pin: str) -> None:
    with pytest.raises(SettingsError, match="a pin; got"):
        _transport(tmp_path, "https://service.test", tls_pins=(pin,))


def test_folder_is_free_again_after_a_pin_that_was_refused(front: TlsFront, pinned: MakeClient) -> None:
    with pytest.raises(SettingsError) as kept:
        pinned(front.url, "no pin")
    with pinned(front.url, front.pin) as client:
        assert client.run_once().outcome == "accepted"
    assert kept.value.got == "no pin"


def test_pins_want_tls(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="pins are of keys of TLS"):
        _transport(tmp_path, "http://service.test", tls_pins=(NO_PIN,))


@pytest.mark.parametrize(
    "given", [{"tls_pins": (NO_PIN,)}, {"proxy": "http://proxy.test"}, {"ca_file": Path("ca.pem")}], ids=str
)
def test_way_that_is_given_twice_is_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    http = httpx.MockTransport(lambda request: httpx.Response(200))
    with pytest.raises(SettingsError, match="the way to the service is given twice"):
        _transport(tmp_path, "https://service.test", http=http, **given)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_file_of_authorities_that_cannot_be_used_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"authorities\.pem cannot be used"):
        _transport(tmp_path, "https://service.test", ca_file=path)


def _transport(folder: Path, url: str, **given: Any) -> None:
    identity = new_identity()
    with closing(Transport(url, identity, Way(**given))):
        pass


def test_command_shows_the_pins_that_a_device_then_takes(
    front: TlsFront, authority: Authority, tmp_path: Path
) -> None:
    ca = ("--ca-file", str(authority.ca_file))
    shown = CliRunner().invoke(app, ["tls", "pin", front.url, *ca, "--json"])
    assert shown.exception is None, repr(shown.exception)
    pins = json.loads(shown.stdout)["pins"]
    assert [entry["subject"] for entry in pins] == ["CN=service", "CN=root's deputy", "CN=root"]
    profile, folder = tmp_path / "profile.json", tmp_path / "device"
    profile.write_text(STRONG.model_dump_json())
    run = ["device", "run", "--once", "--population", "weather", "--folder", str(folder), "--url", front.url]
    run += [*ca, "--profile", str(profile), "--enrolment-token", "token", "--json", "--pin"]
    visited = CliRunner().invoke(app, [*run, pins[0]["pin"]])
    assert isinstance(visited.exception, NoExamples)  # as it found when it had taken an offer
    refused = CliRunner().invoke(app, [*run, NO_PIN])
    assert isinstance(refused.exception, TlsPinMismatch)


def test_certificate_that_signs_itself_is_shown_with_its_pin(
    http_service: testing.FakeService, pinned: MakeClient, tmp_path: Path
) -> None:
    places = ["--certificate", str(tmp_path / "c.pem"), "--key", str(tmp_path / "k.pem"), "--json"]
    made = CliRunner().invoke(app, ["tls", "self-signed", "--host", "127.0.0.1", *places])
    pin = json.loads(made.stdout)["pin"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    with (
        TlsFront(http_service.url, context, pin) as front,
        pinned(front.url, pin, ca_file=tmp_path / "c.pem") as client,
    ):
        assert client.run_once().outcome == "accepted"


def test_visits_end_as_any_other(front: TlsFront, pinned: MakeClient) -> None:
    visits: list[Visit] = []
    stop = threading.Event()

    def note(visit: Visit) -> None:
        visits.append(visit)
        stop.set()

    with pinned(front.url, front.pin) as client:
        client.run_forever(stop=stop, on_visit=note)
    assert [visit.outcome for visit in visits] == ["accepted"]
