"""What must hold of the bytes that the tables of a service name: part of `invariants.py`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

from benchmarks.service.records import LIVE, Records
from benchmarks.service.stores import Read


def objects(records: Records, read: Read) -> Iterator[str]:
    """Whatever a row names is in the store, whole; what was sent, for as long as it may be needed."""
    named: dict[tuple[str, str], str] = {}
    for row in (*records.adapter_versions, *records.handouts):
        what = f"version {row.get('id', row.get('version'))}"
        digests = (row["sha256"], row["frozen_sha256"], row.get("state_sha256"))
        named |= {("objects", digest): what for digest in digests if digest is not None}
    dropped = {row["id"] for row in records.rounds if row["updates_dropped"]}
    sent = [row for row in records.assignments if row["round_id"] not in dropped]
    sent += [row for row in records.evaluation_assignments if row["state"] in LIVE]
    for row in sent:
        if row["adapter_sha256"] is not None:
            named["objects", row["adapter_sha256"]] = f"assignment {row['id']}"
    for row in records.assignments:
        kept = row["state"] == "accepted" and row["offered_in"] not in dropped
        if row["update_sha256"] is not None and kept:
            named[f"updates/{row['offered_in']}", row["update_sha256"]] = f"assignment {row['id']}"
    for row in records.upload_parts:
        named[f"uploads/{row['upload_id']}", row["sha256"]] = f"upload {row['upload_id']}"
    for (folder, digest), what in named.items():
        try:
            data = read(folder, digest)
        except OSError as error:
            yield f"{what} names {folder}/{digest}, which cannot be read: {error.strerror}"
            continue
        if hashlib.sha256(data).hexdigest() != digest:
            yield f"{what} names {folder}/{digest}, which has other bytes"


def uploads(records: Records) -> Iterator[str]:
    """Parts follow each other without a gap, and are no more than was promised."""
    assignments = {row["id"]: row for row in records.assignments}
    ends: dict[str, int] = defaultdict(int)
    for row in records.upload_parts:
        if row["offset_bytes"] != ends[row["upload_id"]]:
            yield f"upload {row['upload_id']} has a gap before byte {row['offset_bytes']}"
        ends[row["upload_id"]] = row["offset_bytes"] + row["size_bytes"]
    promised = {row["id"]: row for row in records.uploads}
    for name, end in ends.items():
        if name not in promised or end > promised[name]["length_bytes"]:
            yield f"upload {name} has {end} bytes, which nobody promised"
    for name, row in promised.items():
        own = assignments.get(row["assignment_id"])
        if own is None or own["device_id"] != row["device_id"]:
            yield f"upload {name} is of an assignment of another device"
