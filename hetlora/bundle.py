"""A bundle on disk: one folder, named by the digest of its manifest, immutable once written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hetlora.digest import sha256_of, sha256_of_file, verify_digest
from hetlora.errors import BundleInvalid
from hetlora.manifest import MANIFEST_NAME, Manifest, parse_manifest


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle; `digest` is the SHA-256 of manifest.json."""

    folder: Path
    manifest: Manifest
    digest: str

    def path(self, relative: str) -> Path:
        """Where a file of the manifest lies."""
        return self.folder / relative


def open_bundle(folder: Path, *, verify: bool = True, digest: str | None = None) -> Bundle:
    """Open a bundle folder and, unless told otherwise, check every file against the manifest.

    Raises:
        BundleInvalid: no manifest, a manifest refused by its schema, a missing file or a wrong size.
        DigestMismatch: a file, or the manifest against `digest`, has other bytes than promised.
    """
    try:
        data = (folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise BundleInvalid(f"{folder} is no bundle", got=error.strerror, expected=MANIFEST_NAME) from error
    got = sha256_of(data)
    if digest is not None:
        verify_digest("manifest of the bundle", got=got, expected=digest)
    bundle = Bundle(folder, parse_manifest(data), got)
    if verify:
        verify_files(bundle)
    return bundle


def verify_files(bundle: Bundle) -> None:
    """Check presence, size and digest of every file that the manifest lists."""
    for relative, entry in bundle.manifest.files.items():
        path = bundle.path(relative)
        if not path.is_file():
            raise BundleInvalid("a file of the bundle is missing", got=relative)
        size = path.stat().st_size
        if size != entry.size_bytes:
            raise BundleInvalid(
                f"size of {relative} differs from the manifest",
                got=f"{size} bytes",
                expected=f"{entry.size_bytes} bytes",
            )
        verify_digest(relative, got=sha256_of_file(path), expected=entry.sha256)
