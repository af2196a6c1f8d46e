"""The example store: what an app leaves for training, in one file; it never leaves the device."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypedDict, overload

from edge_sdk.database_file import BUSY_SECONDS
from edge_sdk.defaults import DEFAULT_MAX_BYTES, DEFAULT_MAX_EXAMPLES
from edge_sdk.examples.changes import Bounds, Changes, check_seconds
from edge_sdk.examples.image_files import checked
from edge_sdk.examples.keys import StoreKey
from edge_sdk.examples.kinds import AnyExample, Example
from edge_sdk.examples.rows import ALIVE, READ_ROWS, read_labels, read_rows
from edge_sdk.examples.store_file import StoreFile, rekey
from edge_sdk.examples.token_cache import TokenCache
from edge_sdk.units import MIB
from hetlora.errors import UnavailableError

DEFAULT_MAX_TOKEN_BYTES: Final = 32 * MIB
# What is done where its bytes are still to be overwritten.
REMOVED: Final = "examples are removed"


class StoreOptions(TypedDict, total=False):
    """What an `ExampleStore` takes beside its file, for whoever hands it on; what each is stands there."""

    max_examples: int
    max_bytes: int
    max_token_bytes: int
    keep_seconds: float | None
    encryption_key: StoreKey | None
    previous_encryption_key: StoreKey | None
    busy_seconds: float
    clock: Callable[[], float]


class ExampleStore:
    """Examples in one SQLite file, within its bounds: those that expired go, and then the oldest.

    Safe to use from several threads and processes: an app may put examples while a client trains. What is
    removed, replaced, expired or pushed out is in no file of the store afterwards.

    Args:
        path: the file; SQLite keeps others beside it while the store is open.
        max_examples: how many examples it keeps.
        max_bytes: how much these take, as they are stored; the database around them comes on top.
        max_token_bytes: what tokens made of them may take beside; 0 has them made for each batch.
        keep_seconds: how long examples are kept that do not say so themselves; None is without end.
        encryption_key: 32 random bytes that the app keeps, or what asks its keystore for them. A store that
            was not encrypted is from now on.
        previous_encryption_key: the key that the store may still be under; it is put under `encryption_key`.
        busy_seconds: how long others that write are waited for.
        clock: Unix seconds, by which examples expire.

    Attributes:
        file, tokens: where the examples lie, and what batches keep beside them; an app needs neither.

    Raises:
        SettingsError: the file cannot be opened as a store, or a bound, a time or a key is none.
        StoreKeyWrong: the store is under another key; nothing is lost.
        StoreDamaged: the file is no longer what was written.
        DiskFull: no room to make it or to take the key; it is as it was.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_examples: int = DEFAULT_MAX_EXAMPLES,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_token_bytes: int = DEFAULT_MAX_TOKEN_BYTES,
        keep_seconds: float | None = None,
        encryption_key: StoreKey | None = None,
        previous_encryption_key: StoreKey | None = None,
        busy_seconds: float = BUSY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bounds = Bounds(max_examples, max_bytes, max_token_bytes, keep_seconds)
        self._clock = clock
        self.file = StoreFile(
            Path(path),
            encryption_key=encryption_key,
            previous_encryption_key=previous_encryption_key,
            busy_seconds=busy_seconds,
        )
        self.tokens = TokenCache(self.file, max_token_bytes, clock)
        try:
            with suppress(UnavailableError):  # on a full disk examples can be read; the next change does it
                self.remove_expired()
            # Whoever was killed before it could do so leaves bytes to overwrite.
            self.file.overwrite_removed()
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @overload
    def put(self, text: AnyExample, /, *, keep_seconds: float | None = None) -> None: ...

    @overload
    def put(
        self, text: str, label: str, *, key: str | None = None, keep_seconds: float | None = None
    ) -> None: ...

    def put(
        self,
        text: AnyExample | str,
        label: str | None = None,
        *,
        key: str | None = None,
        keep_seconds: float | None = None,
    ) -> None:
        """Add a labelled text, or an example of any kind; one of the same key is replaced and keeps its age.

        Where there is no room the oldest go, but not the one that is put.

        Args:
            text: a text, which comes with its label; or an example, which has its own label and key.
            keep_seconds: when it expires, from now on, whatever it says itself.

        Raises:
            DataError: text or label is empty, an image cannot be read, or it is larger than the store.
            DependencyMissing: an image file, and Pillow is not installed.
            DiskFull: it does not fit the disk; the store is as it was.
        """
        if isinstance(text, AnyExample):
            if label is not None or key is not None:
                raise TypeError("an example is put with its own label and key")
            self.put_many([text], keep_seconds=keep_seconds)
        else:
            self.put_many([Example(text, label, key)], keep_seconds=keep_seconds)  # type: ignore[arg-type]

    def put_many(self, examples: Iterable[AnyExample], *, keep_seconds: float | None = None) -> None:
        """Add examples in one transaction: all of them or, if one is refused, none.

        All are taken from `examples`, and looked at, before the store is kept from others.
        """
        check_seconds(keep_seconds)
        examples = checked(examples)
        with self.changing() as changes:
            for example in examples:
                changes.put(example, keep_seconds)

    def replace_all(self, examples: Iterable[AnyExample]) -> None:
        """Have these examples and no others, in one transaction: if one is refused, those before stay.

        Raises:
            DataError, DependencyMissing, DiskFull: see `put`.
            UnavailableError: see `delete`.
        """
        examples = checked(examples)
        with self.changing() as changes:
            changes.clear()
            for example in examples:
                changes.put(example)
        self.file.check_overwritten(REMOVED)

    def delete(self, key: str) -> bool:
        """Remove the example of this key for good; False if there is none.

        Raises:
            DiskFull: there is no room to write that it is removed; it is not.
            UnavailableError: it is removed, but its bytes could not be overwritten, as another process reads
                on or the disk is full; the next change does so, and so does this if it is called again.
        """
        with self.changing() as changes:
            found = changes.delete(key)
        self.file.check_overwritten(REMOVED)
        return found

    def clear(self) -> None:
        """Remove all examples for good.

        Raises:
            DiskFull, UnavailableError: see `delete`.
        """
        with self.changing() as changes:
            changes.clear()
        self.file.check_overwritten(REMOVED)

    def remove_expired(self) -> int:
        """Remove what has expired, as each `put` does; returns how many examples it were."""
        with self.changing() as changes:
            return changes.expired

    def count(self) -> int:
        """How many examples there are."""
        with self.file.reading() as database:
            row = database.execute(f"SELECT count(*) FROM examples WHERE {ALIVE}", (self._clock(),))
            return int(row.fetchone()[0])

    def size_bytes(self) -> int:
        """What the examples take, as `max_bytes` counts it."""
        with self.file.reading() as database:
            row = database.execute("SELECT coalesce(sum(size_bytes), 0) FROM examples")
            return int(row.fetchone()[0])

    def kinds(self) -> dict[str, int]:
        """How many examples of each kind there are, by kind."""
        with self.file.reading() as database:
            return dict(
                database.execute(
                    f"SELECT kind, count(*) FROM examples WHERE {ALIVE} GROUP BY kind ORDER BY kind",
                    (self._clock(),),
                ).fetchall()
            )

    def labels(self) -> dict[str, int]:
        """How many examples each label has, by label."""
        with self.file.reading() as database:
            counts = Counter(read_labels(database, self.file.keys(database), self._clock()))
        return dict(sorted(counts.items()))

    def ids(self) -> list[int]:
        """Row numbers for `get`, oldest first."""
        with self.file.reading() as database:
            rows = database.execute(f"SELECT id FROM examples WHERE {ALIVE} ORDER BY id", (self._clock(),))
            return [row_id for (row_id,) in rows]

    def get(self, ids: Sequence[int]) -> list[AnyExample]:
        """The examples of these row numbers, in their order; those removed meanwhile are left out."""
        with self.file.reading() as database:
            rows = read_rows(database, self.file.keys(database), ids, self._clock())
            found = {row.id: row.example for row in rows}
        return [found[row_id] for row_id in ids if row_id in found]

    def __iter__(self) -> Iterator[AnyExample]:
        ids = self.ids()
        for start in range(0, len(ids), READ_ROWS):
            yield from self.get(ids[start : start + READ_ROWS])

    def rekey(self, encryption_key: StoreKey) -> None:
        """Put the store under another key, all of it or nothing; it need not have been encrypted before.

        Raises:
            SettingsError: no key.
            DiskFull: there is no room for it; the store is under the key so far.
            UnavailableError: another process writes on and on, and the store is under the key so far; or it
                "is under the new key, but" older bytes could not be overwritten, as with `delete`.
        """
        rekey([self.file], encryption_key)

    @contextmanager
    def changing(self) -> Iterator[Changes]:
        """One transaction; what it removed is overwritten after it."""
        with self.file.writing() as database:
            changes = Changes(database, self.file.keys(database), self._bounds, self._clock())
            yield changes
        if changes.removed or self.file.owes_overwriting:
            self.file.overwrite_removed()
