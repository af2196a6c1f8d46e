from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hetlora.bundle import open_bundle
from hetlora.digest import sha256_of
from hetlora.errors import BundleInvalid, DigestMismatch
from hetlora.manifest import MAX_MANIFEST_BYTES


def test_bundle_is_named_by_the_digest_of_its_manifest(bundle_folder: Path) -> None:
    digest = sha256_of((bundle_folder / "manifest.json").read_bytes())
    bundle = open_bundle(bundle_folder, digest=digest)
    assert bundle.digest == digest
    assert bundle.path(bundle.manifest.graphs.eval).read_bytes() == b"eval"


def test_manifest_with_another_digest_than_promised_is_refused(bundle_folder: Path) -> None:
    with pytest.raises(DigestMismatch, match="manifest of the bundle"):
        open_bundle(bundle_folder, digest="0" * 64)


@pytest.mark.parametrize("position", [0, 3])
def test_file_with_one_flipped_byte_is_refused(bundle_folder: Path, position: int) -> None:
    path = bundle_folder / "graphs" / "eval.bin"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatch, match=r"graphs/eval\.bin"):
        open_bundle(bundle_folder)


def test_missing_file_is_refused(bundle_folder: Path) -> None:
    (bundle_folder / "graphs" / "eval.bin").unlink()
    with pytest.raises(BundleInvalid, match=r"missing; got graphs/eval\.bin"):
        open_bundle(bundle_folder)


def test_folder_in_the_place_of_a_file_is_refused(bundle_folder: Path) -> None:
    (bundle_folder / "graphs" / "eval.bin").unlink()
    (bundle_folder / "graphs" / "eval.bin").mkdir()
    with pytest.raises(BundleInvalid, match="missing"):
        open_bundle(bundle_folder)


def test_file_of_another_size_is_refused_before_it_is_read(bundle_folder: Path) -> None:
    (bundle_folder / "graphs" / "eval.bin").write_bytes(b"evaluation")
    with pytest.raises(BundleInvalid, match="got 10 bytes; expected 4 bytes"):
        open_bundle(bundle_folder)


def test_link_that_leaves_the_bundle_is_refused_though_its_bytes_fit(
    bundle_folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"eval")
    (bundle_folder / "graphs" / "eval.bin").unlink()
    (bundle_folder / "graphs" / "eval.bin").symlink_to(outside)
    with pytest.raises(BundleInvalid, match="leaves the bundle"):
        open_bundle(bundle_folder)


def test_folder_linked_outside_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    (bundle_folder / "graphs").rename(tmp_path / "elsewhere")
    (bundle_folder / "graphs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleInvalid, match="leaves the bundle"):
        open_bundle(bundle_folder)


def test_link_to_itself_is_refused(bundle_folder: Path) -> None:
    path = bundle_folder / "graphs" / "eval.bin"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(BundleInvalid):
        open_bundle(bundle_folder)


def test_bundle_may_itself_lie_behind_a_link(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle_folder)
    assert open_bundle(tmp_path / "link").manifest.max_tokens == 64


def test_path_too_long_for_the_disk_is_refused(bundle_folder: Path, manifest_fields: dict[str, Any]) -> None:
    # Within what a manifest may name, but not below a folder of some 3500 characters: Linux takes 4096.
    manifest_fields["files"]["/".join(["x" * 200] * 5)] = manifest_fields["files"]["graphs/eval.bin"]
    (bundle_folder / "manifest.json").write_text(json.dumps(manifest_fields))
    with pytest.raises(BundleInvalid, match="cannot be read; got File name too long"):
        open_bundle(bundle_folder / ("graphs/../" * 350))


def test_unverified_bundle_opens_without_its_files(bundle_folder: Path) -> None:
    (bundle_folder / "graphs" / "eval.bin").unlink()
    assert open_bundle(bundle_folder, verify=False).manifest.labels == ("text", "number")


@pytest.mark.parametrize("where", ["nowhere", "graphs"])
def test_folder_without_a_manifest_is_no_bundle(bundle_folder: Path, where: str) -> None:
    with pytest.raises(BundleInvalid, match="is no bundle; got No such file"):
        open_bundle(bundle_folder / where)


def test_file_in_the_place_of_a_bundle_is_refused(bundle_folder: Path) -> None:
    with pytest.raises(BundleInvalid, match="is no bundle; got Not a directory"):
        open_bundle(bundle_folder / "manifest.json")


def test_endless_manifest_is_refused(bundle_folder: Path) -> None:
    with (bundle_folder / "manifest.json").open("wb") as file:
        file.truncate(100 * MAX_MANIFEST_BYTES)
    with pytest.raises(BundleInvalid, match="too large"):
        open_bundle(bundle_folder)
