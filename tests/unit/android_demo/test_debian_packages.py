"""What packs the app comes out of packages of Debian, where there is an apt."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import pytest

CI = Path(__file__).parents[3] / "android_demo" / "ci"
PACKAGES = {"bullseye": ("dalvik-exchange",)}


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CI))
    import debian_packages

    return debian_packages


def test_without_apt_one_sentence_says_what_is_missing(
    debian: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(debian.ToolchainMissing, match="there is no apt-get here"):
        debian.unpack_packages(PACKAGES, tmp_path / "debian")
    assert not (tmp_path / "debian").exists()


def test_packages_are_fetched_anew_for_another_list_alone(
    debian: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "debian").mkdir()
    (tmp_path / "debian.sha256").write_text(hashlib.sha256(repr(PACKAGES).encode()).hexdigest())
    debian.unpack_packages(PACKAGES, tmp_path / "debian")
    with pytest.raises(debian.ToolchainMissing):
        debian.unpack_packages(PACKAGES | {"trixie": ("aapt",)}, tmp_path / "debian")
