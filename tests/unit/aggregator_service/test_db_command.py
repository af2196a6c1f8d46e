"""`hetlora db`, and what the doctor says of a service."""

from __future__ import annotations

import json
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import CertificateBuilder, Name, NameAttribute, random_serial_number
from cryptography.x509.oid import NameOID
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from aggregator_service.service import database_url, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.schema import newest_revision
from benchmarks.postgresql_server import PostgresqlServer
from hetlora.cli.main import app
from hetlora.errors import SettingsError, UnavailableError


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """The settings of a service that never started, as the command finds them."""
    monkeypatch.setenv("HETLORA_DATA_DIR", str(tmp_path / "data"))
    if request.param == "sqlite":
        yield Settings()
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    with server.empty() as url:
        monkeypatch.setenv("HETLORA_DATABASE_URL", url)
        yield Settings()


def run(*words: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, [*words, "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, json.loads(done.stdout)


def set_revision(settings: Settings, revision: str) -> None:
    engine = create_engine(database_url(settings))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
    engine.dispose()


def test_tables_are_made_by_upgrade_and_found_by_check(fresh: Settings) -> None:
    code, told = run("db", "check")
    assert (code, told["current"], told["is_newest"]) == (5, None, False)
    assert not (fresh.data_dir / "hetlora.sqlite").exists()  # looking makes nothing
    code, told = run("db", "upgrade")
    assert (code, told["before"], told["current"]) == (0, None, newest_revision())
    code, told = run("db", "check")
    assert (code, told["is_newest"]) == (0, True)
    assert run("db", "upgrade")[1]["before"] == newest_revision()
    open_service(fresh).close()


def test_check_tells_an_older_revision_and_current_only_names_it(fresh: Settings) -> None:
    run("db", "upgrade")
    set_revision(fresh, "0001")
    code, told = run("db", "check")
    assert (code, told["current"], told["newest"]) == (5, "0001", newest_revision())
    assert run("db", "current")[0] == 0


def test_tables_of_a_newer_hetlora_are_left_alone(fresh: Settings) -> None:
    run("db", "upgrade")
    set_revision(fresh, "9999")
    assert run("db", "check")[0] == 5
    with pytest.raises(SettingsError, match="cannot be migrated"):
        run("db", "upgrade")
    assert run("db", "current")[1]["current"] == "9999"


def test_password_of_the_database_is_not_told(fresh: Settings) -> None:
    url = fresh.database_url
    if url is None:
        assert run("db", "current")[1]["database"] == f"sqlite:///{fresh.data_dir / 'hetlora.sqlite'}"
        return
    with pytest.MonkeyPatch.context() as patch:
        secret = make_url(url.get_secret_value()).set(password="hunter2")
        patch.setenv("HETLORA_DATABASE_URL", secret.render_as_string(hide_password=False))
        assert "hunter2" not in json.dumps(run("db", "current")[1])


def test_database_that_does_not_answer_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETLORA_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(UnavailableError, match="the database cannot be used now"):
        run("db", "check")


@pytest.mark.parametrize("verb", ["check", "upgrade"])
def test_file_that_is_no_database_is_no_matter_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("HETLORA_DATA_DIR", str(tmp_path))
    (tmp_path / "hetlora.sqlite").write_bytes(bytes(8192))
    with pytest.raises(SettingsError, match="file is not a database"):
        run("db", verb)


def test_locked_database_is_unavailable_to_serve(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_timeout_seconds=0.1)
    open_service(settings).close()
    with closing(sqlite3.connect(tmp_path / "hetlora.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="database is locked"):
            open_service(settings)


def findings(*options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, told = run("doctor", "--service", *options)
    return code, {finding["name"]: finding for finding in told["findings"]}


def test_doctor_finds_a_service_that_started_here_well(fresh: Settings) -> None:
    open_service(fresh).close()
    code, found = findings()
    assert code == 0, found
    assert found["tables"]["detail"].endswith(f"at {newest_revision()}")
    assert found["objects"]["detail"] == "whole for each of 0 runs that have not ended"
    assert set(found) == {
        "Python 3.11 or 3.12",
        "settings",
        "tables",
        "object store",
        "objects",
        "disk space",
    }


def test_doctor_names_each_thing_that_is_wrong(fresh: Settings) -> None:
    code, found = findings()
    assert code == 5
    assert "hetlora db upgrade" in found["tables"]["detail"]
    assert not found["object store"]["ok"]
    assert found["disk space"]["ok"]


def test_doctor_tells_a_setting_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETLORA_PORT", "many")
    code, found = findings()
    assert code == 5
    assert "HETLORA_PORT" in found["settings"]["detail"]


@contextmanager
def tls_server(folder: Path, days: int) -> Iterator[int]:
    """The port of a server whose certificate ends in some days and an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = Name([NameAttribute(NameOID.COMMON_NAME, "hetlora.test")])
    now = datetime.now(UTC)
    certificate = (
        CertificateBuilder(name, name, key.public_key(), random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True):
                pass

        thread = threading.Thread(target=greet)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(("days", "ok"), [(15, True), (13, False)])
def test_doctor_tells_how_long_the_certificate_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, ok: bool
) -> None:
    monkeypatch.setenv("HETLORA_DATA_DIR", str(tmp_path))
    with tls_server(tmp_path, days) as port:
        found = findings("--url", f"https://127.0.0.1:{port}")[1]["certificate"]
    assert found["ok"] is ok, found


def test_doctor_reads_the_certificate_that_the_service_is_to_serve_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "own.pem", tmp_path / "own-key.pem"
    made = CliRunner().invoke(
        app, ["tls", "self-signed", "--host", "a.test", "--certificate", str(certificate), "--key", str(key)]
    )
    assert made.exit_code == 0, made.output
    monkeypatch.setenv("HETLORA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HETLORA_TLS_CERTIFICATE", str(certificate))
    assert "a certificate and its key go together" in findings()[1]["certificate"]["detail"]
    monkeypatch.setenv("HETLORA_TLS_KEY", str(key))
    assert findings()[1]["certificate"]["ok"]
