"""Images as arrays for a model of 3 x 2 x 2 numbers, each (value / 255 - 0.5) / 0.5."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_bundle import bundle_on_disk, tiny_files, tiny_manifest
from fake_runtime import Opened
from fake_service import FakeService
from PIL import Image

from edge_sdk.batching.batches import batching_of, check_examples, draw_batches
from edge_sdk.batching.collation import ImageCollation
from edge_sdk.batching.images import ImageScaler
from edge_sdk.client import EdgeClient
from edge_sdk.examples import Example, ExampleStore, ImageExample
from hetlora.errors import BundleInvalid, DataError
from hetlora.manifest import ImageInfo, Manifest
from hetlora.messages.device import TrainingSettings

RED, GREEN = (255, 0, 0), (0, 255, 0)


def _manifest(shape: tuple[int | str, ...] = ("batch", 3, 2, 2)) -> Manifest:
    manifest = tiny_manifest(tiny_files(), "image-classification")
    inputs = tuple(tensor.model_copy(update={"shape": shape}) for tensor in manifest.inputs)
    return manifest.model_copy(update={"inputs": inputs})


def _file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_pixels_of_the_models_size_are_scaled_and_put_channel_by_channel() -> None:
    pixels = np.array([[[0, 51, 255], [255, 51, 0]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
    values = ImageScaler(_manifest()).pixel_values(ImageExample.of_pixels(pixels, "cold"))
    assert values.dtype == np.float32
    assert values == pytest.approx(
        np.array([[[-1, 1], [-1, 1]], [[-0.6, -0.6], [-1, 1]], [[1, -1], [-1, 1]]], np.float32), abs=1e-6
    )


def test_mean_and_deviation_are_each_channels_own() -> None:
    manifest = _manifest().model_copy(update={"image": ImageInfo(mean=(0, 0.5, 1), std=(1, 0.5, 0.25))})
    values = ImageScaler(manifest).pixel_values(ImageExample(b"\xff" * 12, "cold", shape=(2, 2, 3)))
    assert values[:, 0, 0].tolist() == [1, 1, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_file_is_opened_and_brought_to_the_models_size(kind: str) -> None:
    values = ImageScaler(_manifest()).pixel_values(
        ImageExample(_file(Image.new("RGB", (7, 5), RED), kind), "x")
    )
    assert values.shape == (3, 2, 2)
    assert values[0] == pytest.approx(1, abs=0.02)  # JPEG is not exact
    assert values[1:] == pytest.approx(-1, abs=0.02)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_file_of_other_channels_is_converted(mode: str) -> None:
    white = Image.new("RGB", (2, 2), (255, 255, 255)).convert(mode)
    values = ImageScaler(_manifest()).pixel_values(ImageExample(_file(white), "x"))
    assert (values == 1).all()


def test_model_of_one_channel_sees_greys() -> None:
    manifest = _manifest(("batch", 1, 2, 2)).model_copy(update={"image": ImageInfo(mean=(0,), std=(1,))})
    scaler = ImageScaler(manifest)
    assert scaler.pixel_values(ImageExample(bytes([0, 51, 102, 255]), "x", shape=(2, 2, 1))).tolist() == [
        [[0, pytest.approx(0.2)], [pytest.approx(0.4), 1]]
    ]
    coloured = ImageExample(_file(Image.new("RGB", (2, 2), (255, 255, 255))), "x")
    assert scaler.pixel_values(coloured).tolist() == [[[1, 1], [1, 1]]]


def test_photo_is_turned_as_its_file_says_it_was_held() -> None:
    held = Image.new("RGB", (2, 2), GREEN)
    held.putpixel((0, 0), RED)  # left above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    values = ImageScaler(_manifest()).pixel_values(ImageExample(_file(held, exif=exif), "x"))
    assert values[0].tolist() == [[-1, -1], [-1, 1]]


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        (("batch", 4, 2, 2), "takes no images"),
        (("batch", 1, 2, 2), "takes no images"),  # of three means
        (("batch", "tokens"), "takes no images"),
        (("batch", 3, "height", "width"), "of no one size"),
    ],
)
def test_bundle_that_images_cannot_fill_is_refused(shape: tuple[int | str, ...], fault: str) -> None:
    with pytest.raises(BundleInvalid, match=fault):
        ImageScaler(_manifest(shape))


def test_batch_holds_images_and_the_places_of_their_labels() -> None:
    collate = ImageCollation(_manifest())
    dark, light = (ImageExample(bytes([value]) * 12, "x", shape=(2, 2, 3)) for value in (0, 255))
    batch = collate(
        [
            ImageExample(dark.image, "warm", shape=dark.shape),
            ImageExample(light.image, "cold", shape=dark.shape),
        ]
    )
    assert batch["labels"].tolist() == [1, 0]
    assert batch["pixel_values"].shape == (2, 3, 2, 2)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [-1, 1]
    with pytest.raises(DataError, match="label that the bundle does not know"):
        collate([dark])
    with pytest.raises(DataError, match="got labelled_text; expected image-classification from image"):
        collate([Example("snow", "cold")])


def test_stamped_bundle_is_given_full_batches(tmp_path: Path) -> None:
    bundle = bundle_on_disk(tmp_path, "image-classification")
    bundle = type(bundle)(bundle.folder, _manifest((3, 3, 2, 2)), bundle.digest)
    batching = batching_of(bundle, TrainingSettings(batch_size=2))
    with ExampleStore(tmp_path / "examples.sqlite") as store:
        store.put(ImageExample(bytes(12), "cold", shape=(2, 2, 3)))
        check_examples(store, "image-classification", ["cold", "warm"])
        batches = draw_batches(batching.read(store), batching, rng=np.random.default_rng(0))
        assert next(batches)["pixel_values"].shape == (3, 3, 2, 2)


@pytest.mark.parametrize("service", ["image-classification"], indirect=True)
def test_device_trains_on_the_images_that_its_app_put(
    service: FakeService, make_client: Callable[..., EdgeClient]
) -> None:
    opened = Opened()
    client = make_client(runtime=opened)
    client.examples.clear()
    client.examples.put(ImageExample(_file(Image.new("RGB", (9, 9), RED)), "cold", "red"))
    client.examples.put(ImageExample.of_pixels(np.full((2, 2, 3), 255, np.uint8), "warm", "white"))
    assert client.run_once().outcome == "accepted"
    batch = opened.runtimes[0].batches[0]
    by_label = dict(
        zip(batch["labels"].tolist(), batch["pixel_values"].mean(axis=(2, 3)).tolist(), strict=True)
    )
    assert by_label == {0: [1, -1, -1], 1: [1, 1, 1]}


@pytest.fixture
def service(request: pytest.FixtureRequest) -> FakeService:
    return FakeService(task=request.param)


# Without Pillow, as `pip install hetlora[edge]` leaves it.
WITHOUT_PILLOW = """
import json, sys
from pathlib import Path
sys.modules["PIL"] = None
from edge_sdk.examples import ExampleStore, ImageExample
from hetlora.errors import DependencyMissing
with ExampleStore(Path(sys.argv[1])) as store:
    store.put(ImageExample(bytes(12), "cold", shape=(2, 2, 3)))
    try:
        store.put(ImageExample(b"\\xff\\xd8\\xff", "cold"))
    except DependencyMissing as error:
        print(json.dumps([store.count(), error.code, error.expected]))
"""


def test_device_without_pillow_takes_pixels_and_says_what_files_need(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_PILLOW, str(tmp_path / "examples.sqlite")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(told.stdout) == [1, "dependency_missing", "pip install 'hetlora[edge-images]'"]


@pytest.mark.slow
def test_image_becomes_what_transformers_makes_of_it() -> None:
    from transformers import ViTImageProcessor

    processor = ViTImageProcessor(
        size={"height": 6, "width": 8}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    info = ImageInfo(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    manifest = _manifest(("batch", 3, 6, 8)).model_copy(update={"image": info})
    rng = np.random.default_rng(0)
    for size in ((6, 8), (31, 17), (4, 5)):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        wanted = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
        values = ImageScaler(manifest).pixel_values(ImageExample.of_pixels(pixels, "x"))
        assert values == pytest.approx(wanted, abs=1e-5)
