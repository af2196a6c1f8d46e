"""TLS of the service's own, over real sockets, and what is refused without it."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from pydantic import SecretStr
from service_process import process

from aggregator_service.self_signed import SelfSigned, self_signed, write_self_signed
from aggregator_service.server import listen, serve
from aggregator_service.service import TOKEN_FILE
from aggregator_service.settings import Settings
from aggregator_service.tls import tls_context
from hetlora.errors import SettingsError

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def made() -> SelfSigned:
    return self_signed(["127.0.0.1"], NOW, days=2)


@pytest.fixture
def files(made: SelfSigned, tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    write_self_signed(made, certificate, key)
    return certificate, key


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hetlora.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "1000", **environment},
        check=False,
    )


@pytest.mark.slow
def test_service_with_a_certificate_answers_those_who_trust_it(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = files
    data_dir = tmp_path / "data"
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with process(data_dir, *options, verify=ssl.create_default_context(cafile=certificate)) as (_, client):
        url = str(client.base_url).rstrip("/")
        assert url.startswith("https://127.0.0.1:")
        answer = client.get("/internal/v1/health")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"

        # Neither somebody who trusts others, nor somebody who does without.
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/internal/v1/health")
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/internal/v1/health")

        token = (data_dir / TOKEN_FILE).read_text().strip()
        given = {"HETLORA_OPERATOR_TOKEN": token, "HETLORA_URL": url}
        refused = command("population", "list", **given)
        assert refused.returncode == 5
        assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
        created = command("population", "create", "camera", "--ca-file", str(certificate), "--json", **given)
        enrolment = json.loads(created.stdout)["enrolment_token"]
        listed = command("population", "list", "--json", HETLORA_CA_FILE=str(certificate), **given)
        assert [item["name"] for item in json.loads(listed.stdout)["items"]] == ["camera"]

        visited = command(
            *("device", "run", "--population", "camera", "--folder", str(tmp_path / "device"), "--once"),
            *("--url", url, "--ca-file", str(certificate), "--json"),
            HETLORA_ENROLMENT_TOKEN=enrolment,
        )
        assert visited.returncode == 0, visited.stderr
        assert json.loads(visited.stdout)["code"] is None
        devices = command("device", "list", "--json", HETLORA_CA_FILE=str(certificate), **given)
        assert [item["state"] for item in json.loads(devices.stdout)["items"]] == ["accepted"]


def answers_with(
    url: httpx.URL, name: str | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> bytes:
    """The certificate (PEM) that a new connection is served; `name` is that of the host, if one is named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    with (
        socket.create_connection((url.host, url.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=name) as encrypted,
    ):
        encrypted.sendall(b"GET /internal/v1/health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert encrypted.recv(100).startswith(b"HTTP/1.1 200 ")
        return ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True) or b"").encode()


@pytest.mark.slow
def test_renewed_certificate_is_served_to_new_connections_and_the_others_stay(
    made: SelfSigned, files: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = files
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    trust = ssl.create_default_context(cafile=certificate)
    with process(tmp_path / "data", *options, verify=trust) as (_, client):
        url = client.base_url
        assert answers_with(url) == made.certificate
        renewed = self_signed(["127.0.0.1"], NOW, days=3)

        certificate.write_bytes(renewed.certificate)  # its key is still the old one's
        assert answers_with(url) == made.certificate
        certificate.unlink()
        assert answers_with(url) == made.certificate
        certificate.write_bytes(renewed.certificate)
        key.write_bytes(renewed.key)
        for name in (None, "localhost"):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                assert answers_with(url, name, version) == renewed.certificate

        # By its connection from before: it trusts no other certificate, and would find no new one.
        assert client.get("/internal/v1/health").status_code == 200
        with httpx.Client(base_url=url, verify=trust) as another, pytest.raises(httpx.ConnectError):
            another.get("/internal/v1/health")

        newest = self_signed(["127.0.0.1"], NOW, days=4)
        for path, data in ((certificate, newest.certificate), (key, newest.key)):  # as certbot does, by name
            (tmp_path / "new").write_bytes(data)
            (tmp_path / "new").replace(path)
        assert answers_with(url) == newest.certificate


def test_old_protocols_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, tls_certificate=files[0], tls_key=files[1])
    context = tls_context(settings)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_network_without_tls_is_refused_before_anything_is_opened(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"listens on this machine alone.*HETLORA_INSECURE_HTTP"):
        serve(Settings(data_dir=tmp_path / "data", host=host, port=0))
    assert not (tmp_path / "data").exists()


def test_command_refuses_the_network_in_one_message(tmp_path: Path) -> None:
    ended = command("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path / "data"))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "error settings_invalid: without TLS" in ended.stderr
    assert "hetlora tls self-signed" in ended.stderr


def test_network_without_tls_is_there_for_who_asks_for_it(files: tuple[Path, Path]) -> None:
    with closing(listen(Settings(host="0.0.0.0", port=0, insecure_http=True))) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    with closing(listen(Settings(host="0.0.0.0", port=0, tls_certificate=files[0], tls_key=files[1]))):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_needs_no_certificate(host: str) -> None:
    with closing(listen(Settings(host=host, port=0))):
        pass


def without_key(certificate: Path, key: Path) -> None:
    key.unlink()


def of_another(certificate: Path, key: Path) -> None:
    key.write_bytes(self_signed(["127.0.0.1"], NOW, days=2).key)


def of_zeros(certificate: Path, key: Path) -> None:
    certificate.write_bytes(bytes(100))


def encrypted(certificate: Path, key: Path) -> None:
    plain = serialization.load_pem_private_key(key.read_bytes(), password=None)
    key.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )


@pytest.mark.parametrize("spoil", [without_key, of_another, of_zeros, encrypted])
def test_certificate_that_cannot_be_used_is_told_before_anything_is_opened(
    files: tuple[Path, Path], tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    spoil(*files)
    settings = Settings(data_dir=tmp_path / "data", port=0, tls_certificate=files[0], tls_key=files[1])
    with pytest.raises(SettingsError, match="the certificate or its key cannot be used"):
        serve(settings)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("only", ["tls_certificate", "tls_key"])
def test_certificate_and_key_go_together(files: tuple[Path, Path], only: str) -> None:
    settings = Settings.model_validate({only: files[0], "operator_token": SecretStr("x" * 16)})
    with pytest.raises(SettingsError, match=f"only HETLORA_{only.upper()}"):
        tls_context(settings)


def test_command_writes_a_certificate_and_shows_its_fingerprint(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    arguments = ("tls", "self-signed", "--host", "fl.example.org", "--host", "192.0.2.7", "--days", "30")
    places = ("--certificate", str(certificate), "--key", str(key), "--json")
    told = json.loads(command(*arguments, *places).stdout)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    read = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert told["sha256"] == read.fingerprint(hashes.SHA256()).hex(":").upper()
    names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["fl.example.org", "192.0.2.7"]
    assert read.not_valid_after_utc - read.not_valid_before_utc == timedelta(days=30, hours=1)
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    again = command(*arguments, *places)
    assert again.returncode == 3
    assert str(key) in again.stderr
    assert read == x509.load_pem_x509_certificate(certificate.read_bytes())


def test_key_is_not_left_without_its_certificate(made: SelfSigned, tmp_path: Path) -> None:
    (tmp_path / "c.pem").touch()
    with pytest.raises(SettingsError, match=r"c\.pem: File exists"):
        write_self_signed(made, tmp_path / "c.pem", tmp_path / "k.pem")
    assert not (tmp_path / "k.pem").exists()


@pytest.mark.parametrize("host", ["", "a b", "http://fl.example.org", "*", "x" * 64, "fl.example.org:8440"])
def test_host_that_is_none_gets_no_certificate(host: str) -> None:
    with pytest.raises(SettingsError, match="host of a certificate"):
        self_signed([host], NOW, days=1)


def test_ca_file_without_certificates_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for name in ("empty.pem", "absent.pem"):
        path = str(tmp_path / name)
        ended = command(
            "population", "list", "--token", "any", "--ca-file", path, "--url", "https://127.0.0.1:9"
        )
        assert ended.returncode == 3
        assert f"{path} cannot be used" in ended.stderr
