"""What the client tells of its device, visit after visit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_bundle import bundle_on_disk, stamped, tiny_files, tiny_manifest
from fake_service import NOW, FakeService
from strong_device import STRONG
from typer.testing import CliRunner

from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from edge_sdk.planning.capabilities import Capabilities
from edge_sdk.probe.model_shape import LayerShape, ModelShape
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.cli.main import app
from hetlora.manifest import Manifest

MakeClient = Callable[..., EdgeClient]
QUERY = LayerShape(4, 6, 1)  # of the tiny bundle


def kept(folder: DeviceFolder) -> dict[str, Any]:
    rates: dict[str, Any] = json.loads(folder.rates_file.read_text())["rates"]
    return rates


def test_first_visit_leaves_rates_and_the_next_client_takes_them_over(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    service.offer = None
    make_client(capabilities=None).run_once()
    first = kept(folder)
    make_client(capabilities=None, clock=lambda: NOW + 60).run_once()
    assert kept(folder) == first
    told = [check_in.capabilities for check_in in service.check_ins[-2:]]
    assert told[0].matmul_flops_per_second == told[1].matmul_flops_per_second
    assert told[1].architecture == told[0].architecture is not None


def test_offer_of_a_model_has_the_device_tried_at_its_shapes(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    assert make_client(capabilities=None).run_once().outcome == "accepted"
    # Batches of two texts of up to 8 tokens: 16 rows.
    assert str(ModelShape(16, (QUERY,))) in kept(folder)["model_matmul"]["circumstances"]


def test_rate_of_a_long_download_is_told_with_the_next_visit(folder: DeviceFolder) -> None:
    def measured() -> Capabilities:
        return Capabilities(folder, given=None, traffic_bytes_per_round=None, clock=lambda: NOW)

    assert measured().report().download_bytes_per_second is None
    measured().note_download(None)
    assert measured().report().download_bytes_per_second is None
    measured().note_download(1_234_567.0)
    assert measured().report().download_bytes_per_second == 1.2e6


def test_command_tries_the_model_of_a_bundle_and_makes_no_folder(tmp_path: Path) -> None:
    bundle, absent = bundle_on_disk(tmp_path / "bundle").folder, tmp_path / "absent"
    asked = ["probe", "--json", "--bundle", str(bundle), "--folder", str(absent)]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["rates"]["model_matmul_flops_per_second"] > 0
    assert found["disk_free_bytes"] > 0
    assert not absent.exists()


def test_profile_by_hand_is_told_as_it_is_and_nothing_is_measured(
    make_client: MakeClient, service: FakeService, folder: DeviceFolder
) -> None:
    make_client().run_once()
    assert {check_in.capabilities for check_in in service.check_ins} == {STRONG}
    Capabilities(folder, given=STRONG, traffic_bytes_per_round=None, clock=lambda: NOW).note_download(5.0)
    assert not folder.rates_file.exists()


MANIFEST = tiny_manifest(tiny_files())  # for up to 16 tokens


def with_modules(*features: tuple[int, int]) -> Manifest:
    modules = tuple(ModuleSpec(f"m{number:02}", *pair) for number, pair in enumerate(features))
    return MANIFEST.model_copy(update={"adapter": AdapterSpec(modules, scaling=1.0, max_rank=2)})


@pytest.mark.parametrize(
    ("manifest", "batch", "tokens", "rows"),
    [
        (MANIFEST, 4, 8, 32),
        (MANIFEST, 4, 100, 64),  # as many tokens as the bundle takes
        (MANIFEST, 64, 16, 128),  # more rows go at the same rate
        (stamped(MANIFEST, rows=3, tokens=5), 64, 16, 15),
        (tiny_manifest(tiny_files(), "image-classification"), 1, 1, 128),  # a picture is many tokens
    ],
    ids=["text", "long text", "many", "stamped", "pictures"],
)
def test_rows_of_a_model_are_the_tokens_of_a_batch(
    manifest: Manifest, batch: int, tokens: int, rows: int
) -> None:
    assert ModelShape.of(manifest, batch=batch, tokens=tokens) == ModelShape(rows, (QUERY,))


def test_layers_of_one_size_are_tried_once_and_the_largest_work_first() -> None:
    manifest = with_modules((64, 64), (64, 64), (64, 32), (2048, 4096), (1024, 512), (8, 8))
    assert ModelShape.of(manifest, batch=1, tokens=1).layers == (
        LayerShape(512, 512, 2),  # what is wider goes at the same rate
        LayerShape(64, 64, 2),
        LayerShape(64, 32, 1),
    )
