"""Images to the arrays that a bundle's model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_sdk.examples.image_files import MODES, open_image
from edge_sdk.examples.kinds import ImageExample
from hetlora.errors import BundleInvalid
from hetlora.graph_names import PIXEL_VALUES
from hetlora.manifest import ImageInfo, Manifest

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageScaler:
    """Images as a manifest wants them: at the model's size, in [0, 1], less the mean, by the deviation.

    Another size is brought to the model's by bilinear interpolation, whatever its proportions, as
    transformers' image processors of ViT do by default.

    Raises:
        BundleInvalid: the bundle takes no images of one size, or of other channels than one or three.
    """

    def __init__(self, manifest: Manifest) -> None:
        shapes = {tensor.name: tensor.shape for tensor in manifest.inputs}
        _, *size = shapes.get(PIXEL_VALUES, ("batch",))
        info = manifest.image
        if info is None or len(size) != 3 or size[0] not in MODES or len(info.mean) != size[0]:
            raise BundleInvalid(
                "the bundle takes no images", got=size, expected="1 or 3 channels, height and width"
            )
        channels, height, width = size
        if not isinstance(channels, int) or not isinstance(height, int) or not isinstance(width, int):
            raise BundleInvalid("the bundle takes images of no one size", got=size)
        self._channels, self._height, self._width, self._info = channels, height, width, info

    def pixel_values(self, example: ImageExample) -> NDArray[np.float32]:
        """Float32 (channels, height, width).

        Raises:
            DataError, DependencyMissing: see `open_image`; pixels of the model's own size need no Pillow.
        """
        size = (self._height, self._width, self._channels)
        if example.shape == size:
            pixels = np.frombuffer(example.image, np.uint8).reshape(size)
        else:
            pixels = self._scaled(open_image(example)).reshape(size)
        return _normalised(pixels, self._info)

    def _scaled(self, image: Image) -> NDArray[np.uint8]:
        from PIL.Image import Resampling

        converted = image.convert(MODES[self._channels])
        return np.asarray(converted.resize((self._width, self._height), Resampling.BILINEAR))


def _normalised(pixels: NDArray[np.uint8], info: ImageInfo) -> NDArray[np.float32]:
    mean, std = np.array(info.mean, np.float32), np.array(info.std, np.float32)
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))
