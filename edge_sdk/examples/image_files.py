"""Image files, opened and checked with Pillow where there is need of it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from edge_sdk.examples.kinds import KIND_OF, AnyExample, ImageExample
from hetlora.errors import DataError, DependencyMissing

if TYPE_CHECKING:
    from PIL.Image import Image

# What an image may come to when it is opened: three bytes for each of these, for as long as a batch is made.
MAX_PIXELS: Final = 2**25
# Pillow's name of an image of so many channels.
MODES: Final = {1: "L", 3: "RGB"}
_FORMATS: Final = ("PNG", "JPEG")


def check_example(example: AnyExample) -> None:
    """Raise unless this is an example that can be trained on: an image file has to be opened for that.

    Raises:
        DataError: no example, or an image file that is damaged, or of more than MAX_PIXELS.
        DependencyMissing: an image file, and Pillow is not installed.
    """
    if type(example) not in KIND_OF:
        raise DataError(
            "no example", got=type(example).__name__, expected=[kind.__name__ for kind in KIND_OF]
        )
    if isinstance(example, ImageExample) and example.shape is None:
        open_image(example)


def checked(examples: Iterable[AnyExample]) -> list[AnyExample]:
    """All of these; raises at the first that `check_example` refuses."""
    taken = []
    for example in examples:
        check_example(example)
        taken.append(example)
    return taken


def open_image(example: ImageExample) -> Image:
    """The decoded image, upright where its file says how it was held.

    Raises:
        DataError, DependencyMissing: see `check_example`.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DependencyMissing(
            "images in files, or of another size than the model's, need Pillow",
            expected="pip install 'hetlora[edge-images]'",
        ) from error
    if example.shape is not None:
        height, width, channels = example.shape
        return Image.frombytes(MODES[channels], (width, height), example.image)
    try:
        with Image.open(io.BytesIO(example.image), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    "image of an example is too large",
                    got=f"{image.width} x {image.height}",
                    expected=f"up to {MAX_PIXELS} pixels",
                )
            return ImageOps.exif_transpose(image)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise DataError("image of an example cannot be read", got=type(error).__name__) from error
