"""Bundles as they are published: checked whole, then never changed."""

from __future__ import annotations

import logging

from aggregator_service.artifacts.objects import touch
from aggregator_service.service import Service
from aggregator_service.storage.tables import BundleRow
from hetlora.errors import BundleInvalid, NotFound
from hetlora.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest

log = logging.getLogger(__name__)


def publish(service: Service, digest: str) -> None:
    """Publish a bundle whose manifest and files were uploaded as objects; doing it again changes nothing.

    Raises:
        NotFound: the manifest or a file was never uploaded.
        BundleInvalid: the manifest is refused by its schema, or a file's size differs from it.
        DigestMismatch: a stored file is not what its name says.
    """
    manifest_bytes = service.objects.size_bytes(digest)
    if manifest_bytes is None:
        raise NotFound("the manifest was never uploaded", got=digest)
    if manifest_bytes > MAX_MANIFEST_BYTES:
        raise BundleInvalid(
            "manifest is too large", got=f"{manifest_bytes} bytes", expected=f"up to {MAX_MANIFEST_BYTES}"
        )
    touch(service, [digest])
    manifest = parse_manifest(service.objects.read(digest))
    touch(service, [entry.sha256 for entry in manifest.files.values()])
    _check_files(service, manifest)
    with service.database.write() as session:
        if session.get(BundleRow, digest) is None:
            session.add(
                BundleRow(
                    digest=digest,
                    base_model=manifest.base_model.id,
                    task=manifest.task,
                    max_rank=manifest.adapter.max_rank,
                    max_tokens=manifest.max_tokens,
                    manifest_bytes=manifest_bytes,
                    size_bytes=manifest_bytes + sum(entry.size_bytes for entry in manifest.files.values()),
                )
            )
    log.info("bundle=%s published files=%d", digest, len(manifest.files))


def _check_files(service: Service, manifest: Manifest) -> None:
    for relative, entry in manifest.files.items():
        service.objects.verify(relative, entry.sha256)
        size_bytes = service.objects.size_bytes(entry.sha256)
        if size_bytes != entry.size_bytes:
            raise BundleInvalid(
                f"size of {relative} differs from the manifest",
                got=f"{size_bytes} bytes",
                expected=f"{entry.size_bytes} bytes",
            )
