"""A store that goes away in the middle of a download: it breaks off, and the log says why in a line."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import httpx
import pytest
from service_operator import Operator
from service_server import served

from aggregator_service.app import create_app
from aggregator_service.service import Service
from aggregator_service.settings import Settings
from aggregator_service.storage.folder import BlobFolder
from hetlora.errors import HetloraError, ServiceFailed, UnavailableError


@dataclass(frozen=True)
class BreaksOff(BlobFolder):
    """A folder whose blobs end after their first byte."""

    fault: type[HetloraError]

    def chunks(self, sha256: str, first: int = 0, stop: int | None = None) -> Generator[bytes, None, None]:
        yield next(super().chunks(sha256, first, stop))[:1]
        raise self.fault("the rest is not there")


@pytest.mark.parametrize(
    ("fault", "traced"), [(UnavailableError, False), (ServiceFailed, True)], ids=["passing", "lost"]
)
def test_download_breaks_off_and_the_log_tells_why(
    service: Service,
    settings: Settings,
    bundle: str,
    caplog: pytest.LogCaptureFixture,
    fault: type[HetloraError],
    traced: bool,
) -> None:
    objects = service.objects
    assert isinstance(objects, BlobFolder)
    breaking = replace(service, objects=BreaksOff(objects.incoming, objects.root, fault))
    with served(create_app(breaking), settings) as http, pytest.raises(httpx.RemoteProtocolError):
        Operator(http).send("GET", f"/bundles/{bundle}/manifest")
    told = [record for record in caplog.records if "broken_off" in record.getMessage()]
    line = f"path=/management/v1/bundles/{bundle}/manifest answer=broken_off"
    if not traced:
        line += " error=the rest is not there"
    assert [(record.getMessage(), record.exc_info is not None) for record in told] == [(line, traced)]
    assert not any("ASGI application" in record.getMessage() for record in caplog.records)
