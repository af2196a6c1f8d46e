"""Adapters on disk: files named by their digest, and an index that names those that count.

A file is there whole or not at all, and the index changes in one step, after all files that it names. So
whatever stops a process, what is read next is as before a change or after it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock
from pydantic import ValidationError

from edge_sdk.adapters.index import AdapterIndex
from edge_sdk.folder import sync_folder
from hetlora.digest import sha256_of
from hetlora.errors import AdapterUnusable
from hetlora.messages.common import ObjectRef

logger = logging.getLogger(__name__)

INDEX_NAME: Final = "index.json"
INCOMPLETE_NAME: Final = "incomplete"  # one name: what a killed process left is written over
LOCK_SECONDS: Final = 30.0
_MOST_INDEX_BYTES: Final = 2**20
_OWN_NAME: Final = re.compile(r"[0-9a-f]{64}\.safetensors")


class AdapterFiles:
    """The files of one folder, for several threads and processes at a time; other files in it are let be.

    `before_step` is told each step that changes the disk before it is taken, for tests that stop there.
    """

    def __init__(self, folder: Path, *, before_step: Callable[[str], None] = lambda step: None) -> None:
        self._folder = folder
        self._before_step = before_step
        # Each thread opens it for itself, so that it holds off threads as it does processes.
        self._lock = FileLock(folder / "lock", timeout=LOCK_SECONDS)

    def index(self) -> AdapterIndex:
        """The index as it stands; an empty one where there is none, or only one that is torn or foreign.

        Raises:
            OSError: it cannot be read now; to take that for none would be to lose what it names.
        """
        try:
            with (self._folder / INDEX_NAME).open("rb") as file:
                return AdapterIndex.model_validate_json(file.read(_MOST_INDEX_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return AdapterIndex()
        except ValidationError:
            logger.warning("event=adapter_index_lost")
            return AdapterIndex()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile.

        Raises:
            OSError: the folder cannot be written, or somebody held it for `LOCK_SECONDS`.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock:
            yield

    def change(self, change: Callable[[AdapterIndex], AdapterIndex | None]) -> AdapterIndex | None:
        """Put in the place of the index what `change` makes of it, unless that is None, and answer that.

        Files that it does not name are removed after it is written. Raises OSError where the index cannot be
        read or written.
        """
        with self.locked():
            changed = change(self.index())
            if changed is not None:
                self._write(INDEX_NAME, changed.model_dump_json().encode())
                self.drop_others(changed)
            return changed

    def put(self, data: bytes) -> ObjectRef:
        """Keep bytes for an index that is then to name them; within `locked`."""
        ref = ObjectRef(sha256=sha256_of(data), size_bytes=len(data))
        if not self._holds(ref):
            self._write(_name(ref), data)
        return ref

    def read(self, ref: ObjectRef) -> bytes:
        """The bytes that were kept.

        Raises:
            AdapterUnusable: the file is gone, or has other bytes.
        """
        try:
            with (self._folder / _name(ref)).open("rb") as file:
                data = file.read(ref.size_bytes + 1)  # one byte too many is enough to be refused
        except OSError as error:
            raise AdapterUnusable("a file of the adapter cannot be read", got=error.strerror) from error
        if sha256_of(data) != ref.sha256:
            raise AdapterUnusable("a file of the adapter is damaged", got=f"{len(data)} bytes")
        return data

    def drop_others(self, index: AdapterIndex) -> None:
        """Remove what this index does not name, and what was left half written; within `locked`."""
        named = {f"{digest}.safetensors" for digest in index.file_digests()}
        for path in self._folder.iterdir():
            is_ours = _OWN_NAME.fullmatch(path.name) is not None or path.name == INCOMPLETE_NAME
            if is_ours and path.name not in named and path.is_file():
                self._before_step(f"drop {path.name}")
                path.unlink()

    def _holds(self, ref: ObjectRef) -> bool:
        try:
            self.read(ref)
        except AdapterUnusable:
            return False
        return True

    def _write(self, name: str, data: bytes) -> None:
        aside = self._folder / INCOMPLETE_NAME
        self._before_step(f"open {name}")
        with aside.open("wb") as file:
            self._before_step(f"write {name}")
            file.write(data)
            file.flush()
            self._before_step(f"sync {name}")
            os.fsync(file.fileno())
        self._before_step(f"rename {name}")
        os.replace(aside, self._folder / name)
        self._before_step(f"sync the folder for {name}")
        sync_folder(self._folder)


def _name(ref: ObjectRef) -> str:
    return f"{ref.sha256}.safetensors"
