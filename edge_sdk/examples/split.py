"""A store of which a share is held out: the same example always falls on the same side."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Unpack

from edge_sdk.examples.changes import Changes, check_seconds
from edge_sdk.examples.encoding import content_of, kind_of
from edge_sdk.examples.image_files import checked
from edge_sdk.examples.keys import KEY_BYTES, StoreKey, resolved
from edge_sdk.examples.kinds import AnyExample
from edge_sdk.examples.schema import fact, set_fact
from edge_sdk.examples.store import REMOVED, ExampleStore, StoreOptions
from edge_sdk.examples.store_file import rekey
from hetlora.errors import SettingsError

_DRAWN: Final = 2**64  # numbers that a hash is read as


def open_stores(
    examples_file: Path, held_out_file: Path, share: float | None, **options: Unpack[StoreOptions]
) -> tuple[ExampleStore, ExampleStore]:
    """The store to train on and the one to evaluate on; without a share, each has what is put into it.

    Without a share that there once was, nothing more is held out, and what is removed, replaced or put under
    another key is so on both sides.

    Raises:
        SettingsError, StoreKeyWrong, StoreDamaged, DiskFull: see `ExampleStore`; none is left open then.
    """
    # A keystore is asked once.
    options["encryption_key"] = resolved(options.get("encryption_key"))
    options["previous_encryption_key"] = resolved(options.get("previous_encryption_key"))
    held_out = ExampleStore(held_out_file, **options)
    try:
        if share is None:
            examples = ExampleStore(examples_file, **options)
            if not _was_split(examples):
                return examples, held_out
            examples.close()
        return SplitExampleStore(examples_file, held_out, share or 0.0, **options), held_out
    except BaseException:
        held_out.close()
        raise


def _was_split(store: ExampleStore) -> bool:
    try:
        with store.file.reading() as database:
            return fact(database, "split_key") is not None
    except BaseException:
        store.close()
        raise


class SplitExampleStore(ExampleStore):
    """An example store that puts a share of what it is given into another one, which is not trained on.

    The side of an example is that on which one of its key lies, or else a hash under a key of the device's
    own: of its key or, where it has none, of its text, image or turns. So it is the same after a restart, a
    replacement and a removal. What this store removes by key, clears, or replaces as a whole, it removes on
    both sides, and both take the key of `rekey`; what it counts and reads is its own side.

    Args:
        held_out: where the share goes; what is put there directly stays possible.
        share: of what is put, 0 to 1; another one later moves no example that is stored, but one without a
            key that is put again may then fall on the other side.
        options: as `ExampleStore` takes them.

    Raises:
        SettingsError: a share that is none, or see `ExampleStore`.
    """

    def __init__(
        self, path: Path, held_out: ExampleStore, share: float, **options: Unpack[StoreOptions]
    ) -> None:
        if not 0 <= share < 1:
            raise SettingsError("held_out_share", got=share, expected="0 or more, and below 1")
        super().__init__(path, **options)
        self._held_out, self._share = held_out, share
        try:
            self._draws = self._drawing()
        except BaseException:
            self.close()
            raise

    def put_many(self, examples: Iterable[AnyExample], *, keep_seconds: float | None = None) -> None:
        """Add examples, each on its side: on each all of them or, if one is refused, on both none."""
        check_seconds(keep_seconds)
        examples = checked(examples)
        with self.changing() as trained, self._held_out.changing() as held_out:
            self._put_each(examples, trained, held_out, keep_seconds)

    def replace_all(self, examples: Iterable[AnyExample]) -> None:
        """Have these examples and no others, each on its side; if one is refused, both stay as they are."""
        examples = checked(examples)
        with self.changing() as trained, self._held_out.changing() as held_out:
            trained.clear()
            held_out.clear()
            self._put_each(examples, trained, held_out)
        self._held_out.file.check_overwritten(REMOVED)
        self.file.check_overwritten(REMOVED)

    def delete(self, key: str) -> bool:
        """Remove the examples of this key for good, on both sides; False if there is none."""
        try:
            there = self._held_out.delete(key)
        finally:  # what keeps it from one side is no reason to leave it on the other
            here = super().delete(key)
        return here or there

    def clear(self) -> None:
        """Remove all examples for good, on both sides."""
        try:
            self._held_out.clear()
        finally:
            super().clear()

    def rekey(self, encryption_key: StoreKey) -> None:
        """Put both sides under another key, the one that is held out first; each all of it or nothing.

        Raises:
            DiskFull, UnavailableError: as of `ExampleStore`, of either side. Unless it says that the store is
                under the new key, the other side may have taken it already: call this again, or open them
                with this key and the one so far as `previous_encryption_key`.
        """
        rekey([self._held_out.file, self.file], encryption_key)

    def _put_each(
        self,
        examples: Iterable[AnyExample],
        trained: Changes,
        held_out: Changes,
        keep_seconds: float | None = None,
    ) -> None:
        for example in examples:
            side, other = trained, held_out
            if self._is_held_out(example, trained, held_out):
                side, other = held_out, trained
            side.put(example, keep_seconds)
            if example.key is not None:
                other.delete(example.key)

    def _is_held_out(self, example: AnyExample, trained: Changes, held_out: Changes) -> bool:
        if example.key is not None:
            if held_out.holds(example.key):
                return True
            if trained.holds(example.key):
                return False
            return self._draws(b"key", example.key.encode()) < self._share
        return self._draws(kind_of(example).encode(), content_of(example)) < self._share

    def _drawing(self) -> Callable[[bytes, bytes], float]:
        """A number in [0, 1) of a kind and some bytes, as the device's own key has it."""
        with self.file.writing() as database:
            key = fact(database, "split_key")
            if key is None:
                key = os.urandom(KEY_BYTES)
                set_fact(database, "split_key", key)

        def draw(kind: bytes, data: bytes) -> float:
            digest = hmac.digest(key, kind + b"\0" + data, "sha256")
            return int.from_bytes(digest[:8], "big") / _DRAWN

        return draw
