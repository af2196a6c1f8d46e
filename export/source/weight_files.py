"""The weights of a model folder, read from its safetensors files a few rows at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hetlora.errors import ModelNotExportable

# Names of before 2019, which transformers still renames when it loads.
_OLD_ENDINGS: Final = ((".weight", ".gamma"), (".bias", ".beta"))
_FLOATS: Final = ("F32", "F16", "BF16", "F64")
_BLOCK_NUMBERS: Final = 4 * 2**20  # 16 MiB in float32


@dataclass(frozen=True, slots=True)
class _Tensor:
    path: Path
    dtype: str
    shape: tuple[int, ...]


@dataclass
class WeightFiles:
    """A model folder's weights by state_dict name; memory holds a block of one of them at a time.

    `prefix` is what the architecture's checkpoints may carry before, or lack in, the model's own names
    (transformers' `base_model_prefix`), `tied` the names of each weight that has several. `block_numbers`
    limits what `read` gives at a time, to a row or more.

    Raises:
        ModelNotExportable: no safetensors file, or one that is truncated or torn.
    """

    files: list[Path]
    prefix: str
    tied: Mapping[str, Sequence[str]] = field(default_factory=dict)
    block_numbers: int = _BLOCK_NUMBERS

    def __post_init__(self) -> None:
        self._tensors: dict[str, _Tensor] = {}
        for path in self.files:
            try:
                with safe_open(path, framework="pt") as opened:
                    for key in opened.keys():  # noqa: SIM118 - it is no dict
                        part = opened.get_slice(key)
                        self._tensors[key] = _Tensor(path, part.get_dtype(), tuple(part.get_shape()))
            except (SafetensorError, OSError) as error:
                raise ModelNotExportable(
                    f"{path.name} is no whole safetensors file",
                    got=error,
                    expected="weights that can be read",
                ) from error

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise unless each weight is there, in a floating-point type and of the shape that the model has.

        Raises:
            ModelNotExportable: the first that is not, and how many are absent.
        """
        missing = sorted(name for name in shapes if self._key(name) is None)
        if missing:
            raise ModelNotExportable(
                "weights of the model are missing",
                got=f"{len(missing)} absent, such as {missing[0]}",
                expected="every weight of the model in its files",
            )
        for name, shape in shapes.items():
            found = self._tensors[str(self._key(name))]
            if found.shape != shape or found.dtype not in _FLOATS:
                raise ModelNotExportable(
                    f"weight {name} is not what the model's configuration says",
                    got=f"{found.dtype} {found.shape}",
                    expected=f"floating point {shape}",
                )

    def read(self, name: str) -> Iterator[NDArray[np.float32]]:
        """One weight in float32, in blocks of whole rows; one without axes comes as it is.

        Raises:
            ModelNotExportable: the file cannot be read there, or holds values that are not finite.
        """
        key = str(self._key(name))
        place = self._tensors[key]
        rows = max(1, self.block_numbers // max(1, prod(place.shape[1:])))
        try:
            # Opened for this weight alone: the pages of a mapped file count as ours until it is closed.
            with safe_open(place.path, framework="pt") as opened:
                part = opened.get_slice(key)
                for start in range(0, max(1, place.shape[0]) if place.shape else 1, rows):
                    block = part[start : start + rows] if place.shape else opened.get_tensor(key)
                    yield _finite(block.float().numpy(), name)
        except (SafetensorError, OSError) as error:
            raise ModelNotExportable(f"weight {name} cannot be read", got=error) from error

    def _key(self, name: str) -> str | None:
        exact = [
            key
            for own in (name, *self.tied.get(name, ()))
            for key in (own, f"{self.prefix}.{own}", own.removeprefix(f"{self.prefix}."))
        ]
        old = [
            candidate.removesuffix(new) + old
            for new, old in _OLD_ENDINGS
            for candidate in exact
            if candidate.endswith(new)
        ]
        return next((key for key in (*exact, *old) if key in self._tensors), None)


def _finite(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise ModelNotExportable(f"weight {name} holds values that are not finite", expected="finite numbers")
    return values


def weight_paths(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: model.safetensors, or else those that its index names.

    Raises:
        ModelNotExportable: there are none, or an index that cannot be read. Pickled weights do not count:
            loading them runs code of their author.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    files = [whole] if whole.exists() else sorted(folder / name for name in _indexed(index))
    if not files:
        raise ModelNotExportable(
            "the model has no weights that are safe to load",
            got=sorted(path.name for path in folder.iterdir())[:8],
            expected="model.safetensors",
        )
    return files


def _indexed(index: Path) -> set[str]:
    if not index.exists():
        return set()
    try:
        return {Path(name).name for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelNotExportable(f"{index.name} of the model cannot be read", got=error) from error


def digest_of(files: Iterable[Path]) -> str:
    """The SHA-256 over the files one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
