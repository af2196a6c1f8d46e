"""Tokens of a store's examples: made when a batch asks for them, and kept beside them for the next time."""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from edge_sdk.batching.collation import TokenRow
from edge_sdk.examples import AnyExample, ExampleStore
from hetlora.errors import UnavailableError
from hetlora.manifest import Manifest

logger = logging.getLogger(__name__)

# Of how rows are made and packed; another one makes them anew.
_FORMAT: Final = 1
_COUNTS: Final = struct.Struct("<3I")


def encoding_of(manifest: Manifest, *, max_tokens: int) -> bytes:
    """A digest of all that decides which tokens an example becomes."""
    tokenizer = manifest.graphs.tokenizer
    deciding = {
        "format": _FORMAT,
        "tokenizer": None if tokenizer is None else manifest.files[tokenizer].sha256,
        "task": manifest.task,
        "labels": manifest.labels,
        "max_tokens": max_tokens,
        "generation": None if manifest.generation is None else manifest.generation.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).digest()[:16]


class Tokenised:
    """The examples of a store as rows of tokens; no more of them are in memory than are asked for.

    Args:
        make: what an example becomes.
        encoding: tells rows from those that were made in another way.
    """

    def __init__(self, store: ExampleStore, make: Callable[[AnyExample], TokenRow], encoding: bytes) -> None:
        self._store, self._make, self._encoding = store, make, encoding

    def ids(self) -> list[int]:
        """Row numbers for `get`, oldest first."""
        return self._store.ids()

    def get(self, ids: Sequence[int]) -> list[TokenRow]:
        """The tokens of these rows, in their order; those of examples removed meanwhile are left out."""
        cached = self._store.tokens.get(ids, self._encoding)
        rows = {row_id: _unpacked(packed) for row_id, packed in cached.items()}
        missing = self._store.tokens.examples([row_id for row_id in ids if row_id not in rows])
        made = {stored.id: (stored, self._make(stored.example)) for stored in missing}
        try:
            packed = {row_id: (stored, _packed(row)) for row_id, (stored, row) in made.items()}
            self._store.tokens.put(packed, self._encoding)
        except UnavailableError as error:  # they can be made again, and training need not stop
            logger.info("event=tokens_not_kept error=%s", error)
        rows |= {row_id: row for row_id, (_, row) in made.items()}
        return [rows[row_id] for row_id in ids if row_id in rows]


class Shortened:
    """Rows as they are, but for those that are longer than so many tokens: these come from elsewhere."""

    def __init__(self, rows: Tokenised, shorter: Tokenised, most_tokens: int) -> None:
        self._rows, self._shorter, self._most_tokens = rows, shorter, most_tokens

    def ids(self) -> list[int]:
        """Row numbers for `get`, oldest first."""
        return self._rows.ids()

    def get(self, ids: Sequence[int]) -> list[TokenRow]:
        """The tokens of these rows; see `Tokenised`."""
        rows = self._rows.get(ids)
        if all(row.length <= self._most_tokens for row in rows):
            return rows
        return self._shorter.get(ids)


def _packed(row: TokenRow) -> bytes:
    parts = (row.ids, row.type_ids, row.labels)
    return _COUNTS.pack(*map(len, parts)) + b"".join(np.array(part, "<i4").tobytes() for part in parts)


def _unpacked(packed: bytes) -> TokenRow:
    counts = _COUNTS.unpack_from(packed)
    numbers = np.frombuffer(packed, "<i4", offset=_COUNTS.size)
    ids, type_ids, labels = np.split(numbers, np.cumsum(counts)[:2])
    return TokenRow(ids.tolist(), type_ids.tolist(), labels.tolist())
