"""Bundles on the device: what it needs of them is fetched once, named by digest, checked before use."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from edge_sdk.folder import remove
from edge_sdk.transport.downloads import Downloads
from edge_sdk.transport.verified_files import VerifiedFiles
from edge_sdk.units import MIB
from hetlora.bundle import Bundle, open_bundle
from hetlora.digest import sha256_of_file
from hetlora.errors import BodyTooLarge, DeviceTooSmall
from hetlora.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from hetlora.messages.common import ObjectRef

logger = logging.getLogger(__name__)

# What stays free for the update, the examples and whatever else lives on the device.
DISK_RESERVE_BYTES: Final = 64 * MIB


class BundleCache:
    """Bundles by digest under one folder.

    A file is hashed when a process first uses it, unless `verified` knows it; after that its size is checked
    at each use. A file that fails is fetched again. Interrupted downloads continue, as each file stands on
    its own.

    Where the disk has no room for a bundle, others go, the one that was not used for longest first.

    Args:
        files_of: names the files of a bundle that this device needs; of what else lies there, such as those
            of another runtime, only damaged files go.
        needed: names the bundles that stay all the same, by digest.
        free_bytes: how much the disk of a folder has free.
    """

    def __init__(
        self,
        folder: Path,
        downloads: Downloads,
        verified: VerifiedFiles,
        *,
        files_of: Callable[[Manifest], Collection[str]] = lambda manifest: manifest.files,
        needed: Callable[[], Collection[str]] = frozenset,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._folder = folder
        self._files_of = files_of
        self._needed = needed
        self._free_bytes = free_bytes
        self._downloads = downloads
        self._verified = verified
        self._hashed: set[Path] = set()

    def manifest(self, ref: ObjectRef) -> Manifest:
        """The manifest alone: enough to choose a rank, before any large file is fetched.

        Raises:
            BodyTooLarge: the manifest passes `MAX_MANIFEST_BYTES`.
            BundleInvalid: refused by its schema.
            DigestMismatch, ServiceUnreachable: see `Downloads.fetch`.
        """
        if ref.size_bytes > MAX_MANIFEST_BYTES:
            raise BodyTooLarge(
                "manifest is too large", got=ref.size_bytes, expected=f"up to {MAX_MANIFEST_BYTES} bytes"
            )
        path = self._folder / ref.sha256 / MANIFEST_NAME
        if not self._holds(path, ref):
            self._fetch(ref, path, MANIFEST_NAME)
        return parse_manifest(path.read_bytes())

    def missing_bytes(self, ref: ObjectRef) -> int:
        """How much of the bundle is still to be fetched, by the sizes of what is there, parts of files too.

        Raises:
            BodyTooLarge, BundleInvalid, DigestMismatch, ServiceUnreachable: as for `manifest`, and what
                `files_of` raises.
        """
        return self._wanted_bytes(self._missing_by_size(ref).values())

    def make_room(self, ref: ObjectRef) -> None:
        """Have the disk hold what is missing of a bundle, if it can.

        First what is left of other downloads goes, then bundles that nothing needs; none of it where all of
        it would not be enough.

        Raises:
            DeviceTooSmall: the disk has no room for what is missing.
            BodyTooLarge, BundleInvalid, DigestMismatch, ServiceUnreachable: as for `missing_bytes`.
        """
        self._make_room(ref, self._missing_by_size(ref).values())

    def bundle(self, ref: ObjectRef) -> Bundle:
        """All that this device needs of the bundle; only what is missing or damaged is fetched.

        Raises:
            DeviceTooSmall: the disk has no room for what is missing.
            BodyTooLarge, BundleInvalid, DigestMismatch, ServiceUnreachable: as for `missing_bytes`.
        """
        manifest, folder = self.manifest(ref), self._folder / ref.sha256
        needed = self._files_of(manifest)
        missing = {
            relative: file
            for relative, file in manifest.files.items()
            if not self._holds(folder / relative, file) and relative in needed
        }
        self._make_room(ref, missing.values())
        for relative, file in missing.items():
            self._fetch(file, folder / relative, relative)
        os.utime(folder)  # used now: see `_others`
        return open_bundle(folder, verify=False, digest=ref.sha256)

    def doubt(self, ref: ObjectRef) -> None:
        """Hash what is there of the bundle once more before its next use, as it turned out unusable."""
        self._forget(self._folder / ref.sha256)

    def _missing_by_size(self, ref: ObjectRef) -> Mapping[str, ObjectRef]:
        manifest, folder = self.manifest(ref), self._folder / ref.sha256
        return {
            name: manifest.files[name]
            for name in self._files_of(manifest)
            if not (folder / name).is_file()
            or (folder / name).stat().st_size != manifest.files[name].size_bytes
        }

    def _wanted_bytes(self, files: Collection[ObjectRef]) -> int:
        return sum(file.size_bytes - self._downloads.arrived_bytes(file) for file in files)

    def _make_room(self, ref: ObjectRef, missing: Collection[ObjectRef]) -> None:
        wanted_bytes = self._wanted_bytes(missing)
        if self._has_room(wanted_bytes):
            return
        others = self._others(ref)
        removable_bytes = self._downloads.leftover_bytes(but=missing) + sum(map(_size_bytes, others))
        self._check_room(wanted_bytes, removable_bytes)
        self._downloads.drop_leftovers(but=missing)
        for folder in others:
            if self._has_room(wanted_bytes):
                return
            self._remove(folder)
        self._check_room(wanted_bytes)

    def _check_room(self, wanted_bytes: int, removable_bytes: int = 0) -> None:
        free_bytes = self._free_bytes(self._folder)
        if wanted_bytes + DISK_RESERVE_BYTES > free_bytes + removable_bytes:
            raise DeviceTooSmall(
                "the disk has no room for the bundle",
                got=f"{free_bytes} bytes free, and {removable_bytes} that could go",
                expected=f"{wanted_bytes} and {DISK_RESERVE_BYTES} in reserve",
            )

    def _has_room(self, wanted_bytes: int) -> bool:
        return not wanted_bytes or wanted_bytes + DISK_RESERVE_BYTES <= self._free_bytes(self._folder)

    def _others(self, ref: ObjectRef) -> list[Path]:
        """What may go, the one that was not used for longest first."""
        kept = {ref.sha256, *self._needed()}
        folders = [path for path in self._folder.iterdir() if path.name not in kept and path.is_dir()]
        return sorted(folders, key=lambda path: path.stat().st_mtime_ns)

    def _remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # what an app has open stays on some systems
        self._forget(folder)
        logger.info("bundle=%s event=removed", folder.name)

    def _forget(self, folder: Path) -> None:
        self._verified.forget(folder)
        self._hashed = {path for path in self._hashed if folder not in path.parents}

    def _holds(self, path: Path, ref: ObjectRef) -> bool:
        if not path.is_file():
            remove(path)
            return False
        size = path.stat().st_size
        if size == ref.size_bytes and (path in self._hashed or self._is_right(path, ref.sha256)):
            self._hashed.add(path)
            return True
        logger.warning("file=%s size_bytes=%d event=damaged_in_cache", path.name, size)
        path.unlink()
        self._hashed.discard(path)
        return False

    def _is_right(self, path: Path, sha256: str) -> bool:
        if self._verified.holds(path, sha256):
            return True
        if sha256_of_file(path) != sha256:
            return False
        self._verified.note(path, sha256)
        return True

    def _fetch(self, ref: ObjectRef, path: Path, name: str) -> None:
        self._downloads.fetch(ref, path, name=name)
        self._verified.note(path, ref.sha256)
        self._hashed.add(path)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
