"""`hetlora adapter export --push`: plug-ins, found as any package would bring them, and our own two."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from fake_device import FakeDevice
from model_hub import OWNER, model_hub
from model_hub import TOKEN as HUB_TOKEN
from service_bundle import make_adapter
from service_operator import TOKEN, Operator
from typer.testing import CliRunner, Result

from hetlora.cli.main import app
from hetlora.errors import DependencyMissing, NotPermitted, SettingsError, UnavailableError
from hetlora.registries import GROUP, find_registry

ROOT = Path(__file__).parents[3]
OWN = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
PLUGIN = """
from hetlora.errors import NotPermitted

def shelf(folder, entry):
    files = sorted(path.name for path in folder.iterdir())
    return f"{entry.status.version} of {entry.lineage.population}: {', '.join(files)}"

def broken(folder, entry):
    raise RuntimeError("the shelf is full\\nand more")

def refused(folder, entry):
    raise NotPermitted("the shelf is not yours")
"""

on_sqlite = pytest.mark.parametrize("stage", ["sqlite"], indirect=True)


def install(site: Path, name: str, plugins: dict[str, str]) -> None:
    """What pip leaves of a package's entry points."""
    info = site / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = (f"{own} = {value}\n" for own, value in plugins.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where packages lie that bring registries: this one's own, and a stranger's."""
    site = tmp_path / "site"
    install(site, "hetlora-as-installed", OWN)
    names = ("shelf", "broken", "refused", "absent")
    install(site, "shelves", {name: f"shelves_of_tests:{name}" for name in names})
    (site / "shelves_of_tests.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("shelves_of_tests", None)


@pytest.fixture
def version(operator: Operator, device: FakeDevice, bundle: str) -> str:
    """The population's champion."""
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    version = str(operator.committed(run_id)["adapter_version"])
    message = {"version": version, "reason": "the only one"}
    operator.call("POST", "/populations/keyboard/aliases/champion:set", json=message)
    return version


def arguments(http: httpx.Client, out: Path, *options: str) -> list[str]:
    where = ["--url", str(http.base_url), "--token", TOKEN]
    return ["adapter", "export", "keyboard@champion", "--out", str(out), *options, *where]


def export(http: httpx.Client, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, arguments(http, out, *options), catch_exceptions=False)


@on_sqlite
def test_folder_is_pushed_by_a_plug_in_of_another_package(
    http: httpx.Client, version: str, site: Path, tmp_path: Path
) -> None:
    done = export(http, tmp_path / "out", "--push", "shelf")
    files = "adapter_config.json, adapter_model.safetensors, registry-manifest.json"
    assert done.stdout.splitlines()[1:] == [f"shelf: {version} of keyboard: {files}"]


@on_sqlite
def test_push_that_fails_leaves_the_folder_and_no_traceback(
    http: httpx.Client, version: str, site: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError, match="broken did not take the adapter") as told:
        export(http, tmp_path / "out", "--push", "broken")
    assert told.value.got == "RuntimeError: the shelf is full"
    assert (tmp_path / "out" / "adapter_config.json").exists()
    with pytest.raises(NotPermitted, match="the shelf is not yours"):
        export(http, tmp_path / "another", "--push", "refused")


@on_sqlite
def test_plug_in_that_is_not_there_is_told_before_anything_is_written(
    http: httpx.Client, version: str, site: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        SettingsError, match=r"no registry of this name.*broken, huggingface, mlflow, refused"
    ):
        export(http, tmp_path / "out", "--push", "nowhere")
    with pytest.raises(DependencyMissing, match="absent cannot be loaded"):
        export(http, tmp_path / "out", "--push", "absent")
    install(site, "more-shelves", {"shelf": "os.path:join"})
    with pytest.raises(SettingsError, match="several plug-ins have this name"):
        export(http, tmp_path / "out", "--push", "shelf")
    assert not (tmp_path / "out").exists()


def test_own_registries_are_found_as_installed(site: Path) -> None:
    for name, value in OWN.items():
        push = find_registry(name)
        assert f"{push.__module__}:{push.__qualname__}" == value  # type: ignore[attr-defined]


def in_a_process(
    http: httpx.Client, site: Path, out: Path, push: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """What a library reads when it is imported is read anew, and its warnings are its own."""
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "hetlora.cli", *arguments(http, out, "--push", push, "--json")],
        cwd=out.parent,
        env=os.environ | {"PYTHONPATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@on_sqlite
def test_folder_becomes_a_commit_of_a_private_repository_with_a_tag(
    http: httpx.Client, version: str, site: Path, tmp_path: Path
) -> None:
    known = {"HF_TOKEN": HUB_TOKEN, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
    with model_hub() as hub:
        for attempt in ("first", "second"):  # a repository that is there is no obstacle
            done = in_a_process(http, site, tmp_path / attempt, "huggingface", HF_ENDPOINT=hub.url, **known)
            assert done.returncode == 0, done.stderr
            where = f"{hub.url}/{OWNER}/hetlora-keyboard/commit/{'a' * 40}"
            assert json.loads(done.stdout)["pushed"] == {"huggingface": where}
        stranger = known | {"HF_TOKEN": "hf_anothers"}
        done = in_a_process(http, site, tmp_path / "third", "huggingface", HF_ENDPOINT=hub.url, **stranger)
        assert done.returncode == UnavailableError.exit_code
        assert "the registry huggingface did not take the adapter" in done.stderr
        assert "Traceback" not in done.stderr
    name = f"{OWNER}/hetlora-keyboard"
    assert hub.private == {name: True}
    assert hub.tags[name] == [version] * 2
    pushed = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert hub.files[name] == pushed


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="NO MLFLOW: its plug-in stays untested")
@on_sqlite
def test_version_is_registered_in_mlflow_once_with_its_lineage_and_aliases(
    http: httpx.Client, version: str, site: Path, tmp_path: Path
) -> None:
    database = tmp_path / "mlflow.db"
    for attempt in ("first", "second"):
        done = in_a_process(
            http, site, tmp_path / attempt, "mlflow", MLFLOW_TRACKING_URI=f"sqlite:///{database}"
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pushed"] == {"mlflow": "models:/keyboard/1"}
    with closing(sqlite3.connect(database)) as opened:
        aliases = opened.execute("SELECT alias, name, version FROM registered_model_aliases").fetchall()
        assert aliases == [("champion", "keyboard", 1)]
        ((source,),) = opened.execute("SELECT source FROM model_versions").fetchall()
        parameters = dict(opened.execute("SELECT key, value FROM params").fetchall())
        metrics = dict(opened.execute("SELECT key, value FROM metrics").fetchall())
    assert (parameters["population"], parameters["rule"], parameters["update_count"]) == (
        "keyboard",
        "hetlora",
        "1",
    )
    assert metrics["rank/2/taken"] == 1
    kept = Path(source.removeprefix("file://"))
    kept = kept if kept.is_absolute() else tmp_path / kept
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()
    }
