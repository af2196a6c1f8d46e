"""A bundle on disk: one folder, named by the digest of its manifest, immutable once written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hetlora.digest import sha256_of, sha256_of_file, verify_digest
from hetlora.errors import BundleInvalid
from hetlora.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from hetlora.messages.common import ObjectRef


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle; `digest` is the SHA-256 of manifest.json."""

    folder: Path
    manifest: Manifest
    digest: str

    def path(self, relative: str) -> Path:
        """Where a file of the manifest lies."""
        return self.folder / relative

    def has(self, names: Iterable[str]) -> bool:
        """Whether these files are there, as a device fetches only those that it needs."""
        return all(self.path(relative).is_file() for relative in names)


def open_bundle(folder: Path, *, verify: bool = True, digest: str | None = None) -> Bundle:
    """Open a bundle folder and, unless told otherwise, check every file against the manifest.

    Raises:
        BundleInvalid: no manifest, a manifest refused by its schema, or a file that is missing, has the wrong
            size or lies elsewhere.
        DigestMismatch: a file, or the manifest against `digest`, has other bytes than promised.
    """
    try:
        with (folder / MANIFEST_NAME).open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)  # one byte too many is enough to be refused
    except OSError as error:
        raise BundleInvalid(f"{folder} is no bundle", got=error.strerror, expected=MANIFEST_NAME) from error
    got = sha256_of(data)
    if digest is not None:
        verify_digest("manifest of the bundle", got=got, expected=digest)
    bundle = Bundle(folder, parse_manifest(data), got)
    if verify:
        verify_files(bundle)
    return bundle


def verify_files(bundle: Bundle, names: Iterable[str] | None = None) -> None:
    """Check place, size and digest of every file that the manifest lists, or of those that are named.

    Errors as in `open_bundle`.
    """
    files = bundle.manifest.files
    for relative in files if names is None else names:
        try:
            _verify_file(bundle, relative, files[relative])
        except OSError as error:
            raise BundleInvalid(f"{relative} of the bundle cannot be read", got=error.strerror) from error


def _verify_file(bundle: Bundle, relative: str, entry: ObjectRef) -> None:
    path = bundle.path(relative)
    if not path.is_file():
        raise BundleInvalid("a file of the bundle is missing", got=relative)
    if not path.resolve().is_relative_to(bundle.folder.resolve()):
        # What lies elsewhere can change after the check.
        raise BundleInvalid(f"{relative} is a link that leaves the bundle", got=path.resolve())
    size = path.stat().st_size
    if size != entry.size_bytes:
        raise BundleInvalid(
            f"size of {relative} differs from the manifest",
            got=f"{size} bytes",
            expected=f"{entry.size_bytes} bytes",
        )
    verify_digest(relative, got=sha256_of_file(path), expected=entry.sha256)
