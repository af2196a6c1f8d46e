"""Published bundles, and what their manifests say."""

from __future__ import annotations

from sqlalchemy.orm import Session

from aggregator_service.service import Service
from aggregator_service.storage.blobs import reading_own
from aggregator_service.storage.tables import BundleRow
from hetlora.adapter import AdapterSpec
from hetlora.errors import NotFound
from hetlora.manifest import Manifest, parse_manifest


def get_bundle(session: Session, digest: str) -> BundleRow:
    """A published bundle.

    Raises:
        NotFound: no such bundle was published.
    """
    bundle = session.get(BundleRow, digest)
    if bundle is None:
        raise NotFound("no such bundle is published", got=digest)
    return bundle


def read_manifest(service: Service, digest: str) -> Manifest:
    """The manifest of a published bundle.

    Raises:
        ServiceFailed: see `reading_own`.
    """
    with reading_own("a published manifest"):
        return parse_manifest(service.objects.read(digest))


def read_spec(service: Service, digest: str) -> AdapterSpec:
    """The adapter specification of a published bundle; errors as `read_manifest`."""
    return read_manifest(service, digest).adapter
