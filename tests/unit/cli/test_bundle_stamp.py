"""`hetlora bundle stamp`: the sizes of a bundle's graphs, fixed from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.main import app
from hetlora.errors import RankOutOfRange


def test_bundle_is_stamped_as_asked(tiny_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "stamped"
    sizes = ["--rank", "4", "--batch", "1", "--tokens", "16"]
    done = CliRunner().invoke(
        app, ["bundle", "stamp", str(tiny_bundle.folder), "--out", str(out), "--json", *sizes]
    )
    assert done.exit_code == 0, done.output
    stamped = open_bundle(out)
    assert json.loads(done.stdout) == {"digest": stamped.digest, "folder": str(out), "rank": 4}
    assert {tensor.shape for tensor in stamped.manifest.inputs} == {(1, 16)}


def test_rank_beyond_the_bundles_is_an_error_of_ours(tiny_bundle: Bundle, tmp_path: Path) -> None:
    asked = ["bundle", "stamp", str(tiny_bundle.folder), "--out", str(tmp_path / "stamped"), "--rank", "9"]
    with pytest.raises(RankOutOfRange):
        CliRunner().invoke(app, asked, catch_exceptions=False)
