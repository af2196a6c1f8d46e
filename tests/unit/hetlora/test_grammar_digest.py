from __future__ import annotations

from pathlib import Path

import pytest

from hetlora.digest import sha256_of, sha256_of_file, verify_digest
from hetlora.errors import DigestMismatch

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_digest_of_bytes_and_file_are_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(b"abc") == sha256_of_file(tmp_path / "abc") == ABC


def test_wrong_digest_is_refused_with_both_digests() -> None:
    verify_digest("abc", got=ABC, expected=ABC)
    with pytest.raises(
        DigestMismatch, match=f"abc does not match its digest; got sha256 {ABC}; expected sha256 00"
    ):
        verify_digest("abc", got=ABC, expected="0" * 64)
