"""A database as each revision wrote it: rows in every table, and in each column a value in some row.

A synchronous run is at its second round, which waits to be aggregated while a device still uploads; its first
took two attempts, and its second another. Another run was stopped after a round.
"""

from __future__ import annotations

import json
from typing import Any, Final

import migration_messages as stored
from service_bundle import FILES, make_adapter, make_manifest
from sqlalchemy import Connection

from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes

MADE_AT: Final = "2026-11-20 12:00:00.000000"
KEY, FORMER_KEY = (f"{letter * 43}=" for letter in "hk")
MANIFEST: Final = make_manifest().to_json()
# The adapter that the run began with, what its first round made of it, and the latter at rank 1.
INITIAL, NEWEST, NARROW = (adapter_to_bytes(make_adapter(*of)) for of in ((2, 1.0), (2, 2.0), (1, 2.0)))
OBJECTS: Final = (MANIFEST, *FILES.values(), INITIAL, NEWEST, NARROW)
WAITING_ROUND: Final = "run-1-000001-0001"
# Why rounds were abandoned, in words that were all there was to tell it by.
WINDOW_CLOSED: Final = "report window closed with 0 of 1 updates, 1 needed"
NOT_TRUSTED: Final = "the defence trusts no update of the round; got 1"


def _into(table: str, columns: str, *rows: tuple[Any, ...], **of_each: Any) -> str:
    """An INSERT; `of_each` are columns that all rows have one value in."""
    values = (", ".join(map(_literal, (*row, *of_each.values()))) for row in rows)
    return f"INSERT INTO {table} ({', '.join((columns, *of_each))}) VALUES ({'), ('.join(values)})"


def _set(table: str, row: str, *, key: str = "id", **values: Any) -> str:
    changes = ", ".join(f"{name} = {_literal(value)}" for name, value in values.items())
    return f"UPDATE {table} SET {changes} WHERE {key} = '{row}'"


def _literal(value: Any) -> str:
    if isinstance(value, dict | str):
        return "'" + (value if isinstance(value, str) else json.dumps(value)).replace("'", "''") + "'"
    return "NULL" if value is None else str(value).lower()


_FLEET: Final = (
    _into("populations", "name, enrolment_token_sha256, created_at", ("keyboard", "0" * 64, MADE_AT)),
    _into(
        "devices",
        "id, name, public_key, capabilities, last_contact_at",
        ("device-1", "it's one", KEY, stored.CAPABILITIES, MADE_AT),
        ("device-2", "", "", None, None),
        state="accepted",
        reason="enrolment token",
        population="keyboard",
    ),
    _into(
        "bundles",
        "digest, base_model, task, max_rank, max_tokens, manifest_bytes, size_bytes",
        (sha256_of(MANIFEST), "tiny", "text-classification", 2, 64, len(MANIFEST), 9),
    ),
)
_RUNS: Final = (
    _into(
        "runs",
        "id, state, adapter_version",
        ("run-1", "running", "run-1-v000001"),
        ("run-2", "stopped", "run-2-v000001"),
        reason="operator",
        population="keyboard",
        bundle=sha256_of(MANIFEST),
        settings=stored.OLD_SETTINGS,
        rounds_committed=1,
        created_at=MADE_AT,
    ),
    _into(
        "adapter_versions",
        "id, run_id, round_index, sha256, size_bytes, update_count",
        ("run-1-v000000", "run-1", -1, sha256_of(INITIAL), len(INITIAL), 0),
        ("run-1-v000001", "run-1", 0, sha256_of(NEWEST), len(NEWEST), 1),
        ("run-2-v000000", "run-2", -1, sha256_of(INITIAL), len(INITIAL), 0),
        ("run-2-v000001", "run-2", 0, sha256_of(NEWEST), len(NEWEST), 1),
        state="candidate",
        reason="made",
        created_at=MADE_AT,
    ),
    _into(
        "truncated_adapters",
        "version",
        ("run-1-v000001",),
        ("run-2-v000001",),
        rank=1,
        sha256=sha256_of(NARROW),
        size_bytes=len(NARROW),
    ),
    _into(
        "rounds",
        "id, run_id, round_index, attempt, base_version, ended_at, state, reason",
        ("run-1-000000-0000", "run-1", 0, 0, "run-1-v000000", MADE_AT, "abandoned", WINDOW_CLOSED),
        ("run-1-000000-0001", "run-1", 0, 1, "run-1-v000000", MADE_AT, "committed", "1 updates"),
        ("run-1-000001-0000", "run-1", 1, 0, "run-1-v000001", MADE_AT, "abandoned", NOT_TRUSTED),
        (WAITING_ROUND, "run-1", 1, 1, "run-1-v000001", None, "aggregating", "goal of 1 met"),
        ("run-2-000000-0000", "run-2", 0, 0, "run-2-v000000", MADE_AT, "committed", "1 updates"),
        ("run-2-000001-0000", "run-2", 1, 0, "run-2-v000001", MADE_AT, "abandoned", "run stopped"),
        started_at=MADE_AT,
        window_closes_at=MADE_AT,
    ),
)
# Three updates that are in, one of them in a round that is still to be aggregated; two devices without one.
_HANDED_IN: Final = (sha256_of(stored.UPDATE), len(stored.UPDATE), 1, stored.REPORT)
_NOTHING: Final = (None,) * 4
_ASSIGNMENTS: Final = (
    _into(
        "assignments",
        "id, run_id, round_id, device_id, state, "
        "update_sha256, update_bytes, updated_rank, report, aggregation_weight",
        ("assignment-1", "run-1", "run-1-000000-0000", "device-1", "expired", *_NOTHING, None),
        ("assignment-2", "run-1", "run-1-000000-0001", "device-1", "accepted", *_HANDED_IN, 1.0),
        ("assignment-3", "run-1", WAITING_ROUND, "device-1", "accepted", *_HANDED_IN, None),
        ("assignment-4", "run-1", WAITING_ROUND, "device-2", "uploading", *_NOTHING, None),
        ("assignment-5", "run-2", "run-2-000000-0000", "device-2", "accepted", *_HANDED_IN, 1.0),
        reason="as it came",
        max_rank=2,
        lease_expires_at=MADE_AT,
        rank=1,
        adapter_sha256=sha256_of(NARROW),
    ),
    _into("rank_limits", "run_id, device_id, max_rank", ("run-1", "device-2", 1)),
)
_RECORDS: Final = (
    _into("nonces", "device_id, nonce, expires_at", ("device-1", "one", MADE_AT)),
    _into("operator_tokens", "sha256", ("1" * 64,)),
    # The database counts them, here as in the service.
    _into(
        "transitions",
        "subject, subject_id, old, new, reason, at",
        ("run", "run-1", None, "draft", "created", MADE_AT),
        ("run", "run-1", "draft", "running", "operator", MADE_AT),
    ),
)
_FROZEN: Final = {"frozen_sha256": "3" * 64, "frozen_bytes": 9}
_BY_ALICE: Final = {"key_id": "key-1", "key_name": "alice", "at": MADE_AT}
# What each revision brought, in the words of its own time.
ROWS: Final = {
    "0001": (*_FLEET, *_RUNS, *_ASSIGNMENTS, *_RECORDS),
    "0002": (
        _set("runs", "run-2", trained_rank=2, settings=stored.OLD_SETTINGS | {"rule": {"name": "lora_a2"}}),
        _set("adapter_versions", "run-2-v000001", state_sha256="2" * 64, figures={"kept": 0.5}, **_FROZEN),
        _set("assignments", "assignment-5", adaptation=stored.ADAPTATION),
        _set("handouts", "run-2-v000001", key="version", adaptation=stored.ADAPTATION, **_FROZEN),
    ),
    "0003": (
        _set("rounds", WAITING_ROUND, claimed_by="a-worker", claimed_until=MADE_AT),
        _set("rounds", "run-2-000000-0000", updates_dropped=True),
        _into("objects", "sha256, touched_at", *((sha256_of(data), MADE_AT) for data in OBJECTS)),
    ),
    "0004": (
        _into(
            "uploads",
            "id, assignment_id, device_id, sha256, length_bytes, completed",
            ("upload-1", "assignment-4", "device-2", "4" * 64, 2**33, False),
            ("upload-2", "assignment-3", "device-1", sha256_of(stored.UPDATE), len(stored.UPDATE), True),
        ),
        _into(
            "upload_parts",
            "upload_id, offset_bytes, size_bytes, sha256",
            ("upload-1", 0, 2**32, "5" * 64),
            ("upload-1", 2**32, 9, "6" * 64),
        ),
    ),
    "0005": (
        _into(
            "operator_keys",
            "id, name, role, secret_sha256, created_at, last_used_at, revoked_at",
            ("key-1", "alice", "operator", "7" * 64, MADE_AT, MADE_AT, MADE_AT),
        ),
        _into(
            "audit",
            "at, key_id, key_name, action, subject, status, request_id, source",
            (MADE_AT, "key-1", "alice", "POST /runs", "run-1", 201, "request-1", "127.0.0.1"),
        ),
        _into(
            "repeats",
            "key_id, idempotency_key, request_sha256, salt, subject, expires_at",
            ("key-1", "again", "8" * 64, "salt", "run-1", MADE_AT),
        ),
    ),
    "0006": (_set("rounds", WAITING_ROUND, traceparent=f"00-{'a' * 32}-{'b' * 16}-01"),),
    "0007": tuple(
        _set("assignments", name, offered_in=offered_in, base_version=base, base_step=step, staleness=stale)
        for name, offered_in, base, step, stale in (
            ("assignment-1", "run-1-000000-0000", "run-1-v000000", 0, None),
            ("assignment-2", "run-1-000000-0001", "run-1-v000000", 0, 0),
            ("assignment-3", WAITING_ROUND, "run-1-v000001", 1, 0),
            ("assignment-4", WAITING_ROUND, "run-1-v000001", 1, None),
            ("assignment-5", "run-2-000000-0000", "run-2-v000000", 0, 0),
        )
    ),
    "0008": (
        _into(
            "populations",
            "name, enrolment_token_sha256, created_at, admission, token_expires_at",
            ("camera", "9" * 64, MADE_AT, "approval", MADE_AT),
        ),
        _into("replaced_keys", "device_id, public_key, replaced_at", ("device-1", FORMER_KEY, MADE_AT)),
    ),
    "0009": (
        _into(
            "checkpoints",
            "round_id, leaf_count, inputs_sha256, sha256",
            (WAITING_ROUND, 1, "c" * 64, "d" * 64),
        ),
    ),
    "0010": (
        _into(
            "evaluations",
            "id, state, reason, run_id, devices, window_closes_at, ended_at, figures",
            ("run-1-v000001", "open", "1 rounds committed", "run-1", 3, MADE_AT, None, None),
            ("run-2-v000001", "closed", "3 reports", "run-2", 3, MADE_AT, MADE_AT, stored.FIGURES),
        ),
        _into(
            "evaluation_assignments",
            "id, device_id, state, rank, adapter_sha256, report",
            ("evaluating-1", "device-1", "accepted", 1, sha256_of(NARROW), stored.EVALUATION_REPORT),
            ("evaluating-2", "device-2", "offered", None, None, None),
            reason="as it came",
            evaluation_id="run-1-v000001",
            run_id="run-1",
            max_rank=2,
            lease_expires_at=MADE_AT,
        ),
    ),
    "0011": (
        _set("rounds", "run-1-000000-0000", abandoned_for="window"),
        _set("rounds", "run-1-000001-0000", abandoned_for="aggregation", fault_code="state_conflict"),
        _set("rounds", "run-2-000001-0000", abandoned_for="stop"),
    ),
    "0014": (_set("rounds", WAITING_ROUND, unreadable_since=MADE_AT),),
    "0015": (_set("assignments", "assignment-5", variant=sha256_of(b"a variant")),),
    "0016": (
        _into(
            "aliases",
            "alias, version, reason",
            ("champion", "run-1-v000001", "the better one"),
            population="keyboard",
            **_BY_ALICE,
        ),
        _into(
            "alias_changes",
            "old, new, reason",
            (None, "run-1-v000000", "the first"),
            ("run-1-v000000", "run-1-v000001", "the better one"),
            population="keyboard",
            alias="champion",
            **_BY_ALICE,
        ),
        _into("version_notes", "version, text", ("run-1-v000001", "it's fine"), **_BY_ALICE),
        _into("signing_keys", "id, public_key, first_used_at", ("e" * 64, KEY, MADE_AT)),
    ),
    "0017": (
        _into("privacy_budgets", "population, epsilon, delta, changed_at", ("keyboard", 8.0, 1e-6, MADE_AT)),
        _into(
            "privacy_spends",
            "round_index, epsilon, noise_seed",
            (0, 0.5, None),
            (1, 0.7, "0" * 64),
            run_id="run-1",
            population="keyboard",
            noise_multiplier=10.0,
            delta=1e-6,
            spent_at=MADE_AT,
        ),
    ),
    "0018": (
        _set("runs", "run-1", name="intents-12", request_sha256="d" * 64, cloned_from="run-2"),
        _set("runs", "run-2", starts_at=MADE_AT, stops_at=MADE_AT),
    ),
    "0019": (
        _into(
            "quarantines",
            "id, run_id, device_id, state, sha256, size_bytes, dropped, judged",
            ("assignment-2", "run-1", "device-1", "held", sha256_of(stored.UPDATE), 2**33, False, False),
            ("assignment-5", "run-2", "device-2", "released", sha256_of(stored.UPDATE), 9, True, True),
            reason="screen norm",
            quarantined_at=MADE_AT,
            screen="norm",
            finding="norm 40, the cohort's median 1.414, at most 30.86",
            figures={"value": 40.0, "median": 1.414, "limit": 30.86},
        ),
        _into("screen_passes", "assignment_id", ("assignment-3",)),
        _into("suspension_rules", "population, quarantines, within_updates", ("keyboard", 3, 20)),
    ),
    "0020": (
        _set("devices", "device-1", labels={"site": "lab"}),
        _into(
            "device_groups",
            "id, population, name, filter, created_at",
            ("group-1", "keyboard", "lab", stored.FILTER, MADE_AT),
        ),
        _into(
            "rollouts",
            "id, state, reason, asks, stage, stage_began_at, ended_at, decided",
            ("rollout-1", "running", "operator", True, 1, MADE_AT, None, stored.DECIDED),
            ("rollout-2", "stopped", "operator", False, 0, None, MADE_AT, {"stages": []}),
            population="keyboard",
            version="run-1-v000001",
            former="run-1-v000000",
            group_name="lab",
            filter=stored.FILTER,
            settings=stored.ROLLOUT_SETTINGS,
            created_at=MADE_AT,
        ),
        _into(
            "rollout_devices",
            "id, device_id, state, waits_until, rank, adapter_sha256, new_loss, former_loss",
            ("ask-1", "device-1", "recalled", MADE_AT, 1, sha256_of(NARROW), 0.5, 0.75),
            ("ask-2", "device-2", "offered", None, None, None, None, None),
            reason="as it came",
            rollout_id="rollout-1",
            stage=0,
            run_id="run-1",
            max_rank=2,
            lease_expires_at=MADE_AT,
        ),
    ),
    "0021": (
        _into("masking_rounds", "round_id, stage, threshold", (WAITING_ROUND, "uploads", 2)),
        _into(
            "masking_members",
            "assignment_id, position, sealed, reveal",
            ("assignment-2", 0, stored.SEALED, stored.REVEAL),
            ("assignment-3", None, None, None),
            round_id=WAITING_ROUND,
            mask_key=KEY,
            share_key=KEY,
        ),
    ),
}


def write_rows(connection: Connection, revision: str) -> None:
    """Write the rows of every revision up to this one, at which the tables are."""
    for brought_by, statements in ROWS.items():
        if brought_by <= revision:
            for statement in statements:
                if revision > "0001":  # which gave the table another name
                    statement = statement.replace("truncated_adapters", "handouts")
                connection.exec_driver_sql(statement)
