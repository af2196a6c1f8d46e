"""One literal manifest with files for phones and pages, and what each runtime fetches of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hetlora.digest import sha256_of
from hetlora.errors import BundleInvalid, HetloraError
from hetlora.manifest import parse_manifest

FOLDER = Path(__file__).parent / "manifest"
DATA = (FOLDER / "manifest.json").read_bytes()
EXPECTED = json.loads((FOLDER / "files.json").read_text())


def test_manifest_is_written_with_the_bytes_that_name_the_bundle() -> None:
    assert parse_manifest(DATA).to_json() == DATA
    assert sha256_of(DATA) == EXPECTED["sha256"]


def test_each_runtime_fetches_the_files_that_are_pinned() -> None:
    manifest = parse_manifest(DATA)
    assert {name: sorted(manifest.files_of(name)) for name in manifest.runtimes} == EXPECTED["files"]
    assert EXPECTED["download_bytes"] == {
        name: sum(manifest.files[path].size_bytes for path in paths)
        for name, paths in EXPECTED["files"].items()
    }


def changed(row: dict[str, Any]) -> bytes:
    text = DATA.decode()
    for old, new in row["changes"]:
        assert text.count(old) == 1, row["what"]
        text = text.replace(old, new)
    return text.encode()


def rows(name: str) -> list[Any]:
    return [pytest.param(row, id=row["what"]) for row in json.loads((FOLDER / name).read_text())]


@pytest.mark.parametrize("row", rows("refused.json"))
def test_changed_manifest_is_refused_as_pinned(row: dict[str, Any]) -> None:
    with pytest.raises(HetloraError) as refusal:
        parse_manifest(changed(row))
    assert refusal.value.code == row["code"]


@pytest.mark.parametrize("row", rows("taken.json"))
def test_changed_manifest_is_taken_as_pinned(row: dict[str, Any]) -> None:
    parse_manifest(changed(row))


@pytest.mark.parametrize("client", ["android", "web"])
def test_manifest_without_a_section_is_as_it_was_before_there_was_one(client: str) -> None:
    fields = json.loads(DATA)
    del fields[client]
    manifest = parse_manifest(json.dumps(fields).encode())
    assert json.loads(manifest.to_json()) == fields
    with pytest.raises(BundleInvalid, match=f"no files for {client}"):
        manifest.files_of(client)
