"""The envelope of signed registry entries: DSSE's own example, one encoding for each entry, hostile files."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetlora.errors import MalformedMessage
from hetlora.messages.common import ObjectRef
from hetlora.messages.defence import Defence
from hetlora.messages.registry import Lineage, RankCount, RegistryEntry
from hetlora.messages.rules import HetLoraRule
from hetlora.signed_manifest import (
    MAX_SIGNED_BYTES,
    canonical_json,
    envelope,
    manifest_bytes,
    parse_signed_manifest,
    pre_authentication,
)

ENTRY = RegistryEntry(
    version="run-v000001",
    adapter=ObjectRef(sha256="a" * 64, size_bytes=9),
    frozen=None,
    figures={"left_out": 1.0, "é": 0.1},
    lineage=Lineage(
        population="keyboard",
        base_model="tiny",
        base_sha256="b" * 64,
        bundle="c" * 64,
        run_id="run",
        seed=0,
        round_index=0,
        attempt=1,
        made_from="run-v000000",
        rule=HetLoraRule(),
        server_optimizer=None,
        defence=Defence(),
        cohort_size=3,
        update_count=2,
        ranks=(RankCount(rank=4, taken=2, updated=2),),
    ),
    created_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
)
SIGNED = envelope(canonical_json(ENTRY), bytes(32), bytes(64))


def test_what_is_signed_is_as_in_the_example_of_dsse() -> None:
    found = pre_authentication("http://example.com/HelloWorld", b"hello world")
    assert found == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(*[st.text(max_size=8)] * 2, *[st.binary(max_size=8)] * 2)
def test_two_payloads_are_never_signed_alike(kind: str, other_kind: str, body: bytes, other: bytes) -> None:
    alike = pre_authentication(kind, body) == pre_authentication(other_kind, other)
    assert alike == ((kind, body) == (other_kind, other))


def test_entry_has_one_encoding_and_is_read_back() -> None:
    body = canonical_json(ENTRY)
    assert body.startswith(b'{"adapter":{"sha256":"aaaa')
    assert '"é":0.1'.encode() in body
    again = RegistryEntry.model_validate_json(json.dumps(json.loads(body), indent=3))
    assert canonical_json(again) == body
    assert SIGNED.entry() == ENTRY
    assert parse_signed_manifest(manifest_bytes(SIGNED)) == SIGNED


def spoiled(**changes: Any) -> bytes:
    return json.dumps(json.loads(manifest_bytes(SIGNED)) | changes).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b" " * (2 * MAX_SIGNED_BYTES + 1),
        spoiled(payload="no base64!"),
        spoiled(payload="x" * (MAX_SIGNED_BYTES + 4)),
        spoiled(payloadType="application/vnd.in-toto+json"),
        spoiled(signatures=[]),
        spoiled(signatures=[{"keyid": "a", "sig": "AAAA"}]),
        spoiled(signatures=[{"keyid": "a", "sig": base64.b64encode(bytes(64)).decode()}] * 9),
        spoiled(more=1),
    ],
    ids=range(11),
)
def test_file_that_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_signed_manifest(data)


def test_entry_that_this_hetlora_does_not_know_is_told() -> None:
    body = base64.b64encode(b'{"version": "run-v000001", "from_later": 1}').decode()
    with pytest.raises(MalformedMessage, match="an entry of this hetlora, or of an older one"):
        parse_signed_manifest(spoiled(payload=body)).entry()
