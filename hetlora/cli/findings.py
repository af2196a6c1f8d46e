"""What the doctor looks at: one finding each, whatever is broken."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hetlora.cli.trust import trusted
from hetlora.errors import UnavailableError

if TYPE_CHECKING:
    from aggregator_service.settings import Settings

MIN_DISK_FREE_BYTES: Final = 2 * 10**9  # one bundle, its copy on a device, and a database
MIN_CERTIFICATE_DAYS: Final = 14
MAX_DETAIL_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `needed` marks what whoever asks cannot do without."""

    name: str
    ok: bool
    needed: bool
    detail: str


def try_out(name: str, look: Callable[[], str], *, needed: bool = False) -> Finding:
    """A finding that is good unless `look` raises."""
    try:
        return Finding(name, True, needed, look())
    except Exception as error:  # whatever is broken is what the doctor is asked about
        return Finding(name, False, needed, f"{type(error).__name__}: {error}"[:MAX_DETAIL_CHARACTERS])


def disk_space(folder: Path, *, needed: bool) -> Finding:
    """Whether a folder, or the nearest one above it, has space left."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    return Finding("disk space", free >= MIN_DISK_FREE_BYTES, needed, f"{free / 1e9:.1f} GB free in {there}")


def ask_ready(url: str, ca_file: Path | None) -> str:
    """What a service's readiness probe answers; raises if it is none."""
    import httpx

    answer = httpx.get(url.rstrip("/") + "/internal/v1/ready", timeout=5, verify=trusted(ca_file))
    if not answer.is_success:
        raise UnavailableError(f"{url}: {answer.status_code}", got=answer.text)
    return f"{url}: {answer.status_code}"


def service_findings(url: str) -> list[Finding]:
    """What a service of these settings would work with on this machine."""
    try:
        from aggregator_service.settings import Settings

        settings = Settings()
    except Exception as error:
        return [Finding("settings", False, True, f"{type(error).__name__}: {error}")]
    tables = try_out("tables", lambda: _tables(settings), needed=True)
    findings = [
        Finding("settings", True, True, "HETLORA_... can be used"),
        tables,
        try_out("object store", lambda: _store(settings), needed=True),
        disk_space(settings.data_dir, needed=True),
    ]
    if tables.ok:
        findings.append(try_out("objects", lambda: _objects(settings), needed=True))
    if settings.tls_certificate is not None or settings.tls_key is not None:
        findings.append(try_out("certificate", lambda: _own_certificate(settings), needed=True))
    elif urlsplit(url).scheme == "https":
        findings.append(try_out("certificate", lambda: _shown_certificate(url), needed=True))
    return findings


def _tables(settings: Settings) -> str:
    from aggregator_service.revisions import check_pages, revisions_of

    revisions = revisions_of(settings)
    if not revisions.is_newest:
        raise UnavailableError(
            f"see `hetlora db upgrade`: the tables in {revisions.database}",
            got=revisions.current,
            expected=revisions.newest,
        )
    check_pages(settings)
    return f"{revisions.database} at {revisions.current}"


def _store(settings: Settings) -> str:
    from aggregator_service.storage.store import Store

    Store(settings.data_dir, settings.object_store_url).check()
    return settings.object_store_url or f"{settings.data_dir / 'objects'}"


def _objects(settings: Settings) -> str:
    from aggregator_service.needed_objects import check_needed_objects

    return f"whole for each of {check_needed_objects(settings)} runs that have not ended"


def _own_certificate(settings: Settings) -> str:
    """The last day of the certificate that the service is to serve with."""
    from aggregator_service.tls import tls_context

    tls_context(settings)
    assert settings.tls_certificate is not None
    return _last_day(settings.tls_certificate.read_bytes())


def _shown_certificate(url: str) -> str:
    """The last day of the certificate that is shown at an address, by whomever."""
    address = urlsplit(url)
    shown = ssl.get_server_certificate((address.hostname or "", address.port or 443), timeout=5)
    return _last_day(shown.encode())


def _last_day(pem: bytes) -> str:
    from cryptography.x509 import load_pem_x509_certificate

    ends_at = load_pem_x509_certificate(pem).not_valid_after_utc
    days = (ends_at - datetime.now(UTC)).days
    if days < MIN_CERTIFICATE_DAYS:
        raise UnavailableError(
            "the certificate ends soon",
            got=f"{ends_at:%Y-%m-%d}",
            expected=f"{MIN_CERTIFICATE_DAYS} days or more",
        )
    return f"valid for {days} days, until {ends_at:%Y-%m-%d}"
