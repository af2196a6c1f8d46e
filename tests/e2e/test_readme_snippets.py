"""The README's shorter snippets for app developers, run as they stand with what they take for given."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from tiny_families import write_tiny_family

from edge_sdk import EdgeClient
from hetlora.bundle import Bundle
from hetlora.testing import FakeService

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"


def snippet(first_line: str) -> str:
    """The one that begins with this line."""
    blocks = [block.partition("```")[0] for block in README.read_text().split("```python\n")[1:]]
    [found] = [block for block in blocks if block.startswith(first_line)]
    return found


def client_of(service: FakeService, folder: Path) -> EdgeClient:
    return EdgeClient(service.url, "support-intents", folder, enrolment_token="token")


def test_examples_of_every_kind_are_put_and_one_deleted(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    file = BytesIO()
    image.new("RGB", (4, 4)).save(file, "PNG")
    names = {
        "url": "http://service.test",
        "folder": tmp_path,
        "ask_the_keystore": lambda: bytes(range(32)),
        "png_or_jpeg_bytes": file.getvalue(),
    }
    exec(snippet("from edge_sdk import ChatExample"), names)
    with EdgeClient("http://service.test", "assistants", tmp_path, encryption_key=bytes(range(32))) as client:
        assert client.examples.count() + client.held_out.count() == 2  # the chat is gone


def test_device_classifies_under_what_its_own_training_made(
    tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeService(tiny_bundle) as service, client_of(service, tmp_path) as client:
        client.examples.put("snow", "weather")
        assert client.run_once().outcome == "accepted"
        exec(snippet('client.adapters.use("local")'), {"client": client})
    label, probability, kind = capsys.readouterr().out.split()
    assert label in tiny_bundle.manifest.labels
    assert 1 / 3 <= float(probability) <= 1
    assert kind == "local"


def test_language_model_is_taught_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from export.bundle_writer import export_bundle

    bundle = export_bundle(
        str(write_tiny_family(tmp_path / "model", "smollm")),
        tmp_path / "bundle",
        task="text-generation",
        targets=["all-linear"],
        max_rank=4,
        max_tokens=16,
    )
    taught, _, asked = snippet("client.examples.put(").partition("\n\n")
    with FakeService(bundle) as service, client_of(service, tmp_path / "device") as client:
        exec(taught, {"client": client})
        assert client.run_once().outcome == "accepted"
        exec(asked, {"client": client})
    assert capsys.readouterr().out.count("\n") >= 2  # an answer each
