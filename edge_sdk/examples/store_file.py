"""The file of an example store, and the keys that it is under: examples and their tokens lie in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from edge_sdk.database_file import DatabaseFile
from edge_sdk.examples.keys import StoreKey, StoreKeys, resolved
from edge_sdk.examples.schema import fact, open_store, rekeyed, write_anew
from hetlora.errors import SettingsError, StoreKeyWrong, UnavailableError

# What is done where its bytes are still to be overwritten.
_UNDER_NEW_KEY: Final = "the example store is under the new key"


class StoreFile(DatabaseFile):
    """A database file that is open under a key; arguments and errors are those of `ExampleStore`."""

    def __init__(
        self,
        path: Path,
        *,
        encryption_key: StoreKey | None,
        previous_encryption_key: StoreKey | None,
        busy_seconds: float,
    ) -> None:
        key, previous_key = resolved(encryption_key), resolved(previous_encryption_key)
        super().__init__(path, "the example store", busy_seconds=busy_seconds)
        try:
            self._opened = open_store(self, key, previous_key)
        except BaseException:
            self.close()
            raise

    def keys(self, database: sqlite3.Connection) -> StoreKeys:
        """The keys, in the transaction under way.

        Raises:
            StoreKeyWrong: another process has put the file under others.
        """
        if fact(database, "proof") != self._opened.proof:
            raise StoreKeyWrong("the example store was put under another key while it was open")
        return self._opened.keys

    def take_key(self, key: bytes) -> None:
        """Put the file under another key, all of it or nothing; errors as `rekey`."""
        with self.writing() as database:
            opened = rekeyed(database, self.keys(database), key)
        self._opened = opened
        self.overwrite_removed()

    def check_overwritten(self, done: str) -> None:
        """Raise an UnavailableError, saying what is done, if older bytes are still to be overwritten."""
        if not write_anew(self) or self.owes_overwriting:
            raise UnavailableError(
                f"{done}, but older bytes are not yet overwritten",
                got="another process that reads the store, or a full disk",
                expected="a moment without one, and free disk space",
            )


def rekey(files: Sequence[StoreFile], encryption_key: StoreKey) -> None:
    """Put files under another key, one after the other, each all of it or nothing.

    Raises:
        SettingsError: no key.
        DiskFull: there is no room for it in the first that is not under the new key.
        UnavailableError: another process writes on and on; or a file "is under the new key, but" older bytes
            could not be overwritten, and so are all.
    """
    key = resolved(encryption_key)  # a keystore is asked once
    if key is None:
        raise SettingsError("key of an example store", got=None, expected="the key to put it under")
    for file in files:
        file.take_key(key)
    with ExitStack() as checks:  # each is tried, whatever the others come to
        for file in reversed(files):
            checks.callback(file.check_overwritten, _UNDER_NEW_KEY)
