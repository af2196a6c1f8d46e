"""The weights of a model folder, read from its safetensors files a few rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hetlora.errors import ModelNotExportable

# Names of before 2019, which transformers still renames when it loads.
_OLD_ENDINGS: Final = ((".weight", ".gamma"), (".bias", ".beta"))
_FLOATS: Final = ("F32", "F16", "BF16", "F64")
_BLOCK_NUMBERS: Final = 4 * 2**20  # 16 MiB in float32


@dataclass
class WeightFiles:
    """An open model folder's weights by state_dict name; memory holds a block of one of them at a time.

    `prefix` is what the architecture's checkpoints may carry before, or lack in, the model's own names
    (transformers' `base_model_prefix`). `block_numbers` limits what `read` gives at a time, to a row or more.

    Raises:
        ModelNotExportable: no safetensors file, or one that is truncated or torn.
    """

    files: list[Path]
    prefix: str
    block_numbers: int = _BLOCK_NUMBERS

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._places: dict[str, Any] = {}
        for path in self.files:
            try:
                opened = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                self._stack.close()
                raise ModelNotExportable(
                    f"{path.name} is no whole safetensors file",
                    got=error,
                    expected="weights that can be read",
                ) from error
            self._places |= dict.fromkeys(opened.keys(), opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

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
            key = str(self._key(name))
            part = self._places[key].get_slice(key)
            if tuple(part.get_shape()) != shape or part.get_dtype() not in _FLOATS:
                raise ModelNotExportable(
                    f"weight {name} is not what the model's configuration says",
                    got=f"{part.get_dtype()} {tuple(part.get_shape())}",
                    expected=f"floating point {shape}",
                )

    def read(self, name: str) -> Iterator[NDArray[np.float32]]:
        """One weight in float32, in blocks of whole rows; one without axes comes as it is.

        Raises:
            ModelNotExportable: the file cannot be read there, or holds values that are not finite.
        """
        key = str(self._key(name))
        try:
            part = self._places[key].get_slice(key)
            shape = part.get_shape()
            rows = max(1, self.block_numbers // max(1, prod(shape[1:])))
            for start in range(0, max(1, shape[0]) if shape else 1, rows):
                block = part[start : start + rows] if shape else self._places[key].get_tensor(key)
                values: NDArray[np.float32] = block.float().numpy()
                if not np.isfinite(values).all():
                    raise ModelNotExportable(
                        f"weight {name} holds values that are not finite", expected="finite numbers"
                    )
                yield values
        except (SafetensorError, OSError) as error:
            raise ModelNotExportable(f"weight {name} cannot be read", got=error) from error

    def _key(self, name: str) -> str | None:
        within = name.removeprefix(f"{self.prefix}.")
        for candidate in (name, f"{self.prefix}.{name}", within):
            for new, old in (("", ""), *_OLD_ENDINGS):
                key = candidate if not new else candidate.removesuffix(new) + old
                if key in self._places and (not new or candidate.endswith(new)):
                    return key
        return None


def weight_paths(folder: Path) -> list[Path]:
    """The safetensors files of a model folder.

    Raises:
        ModelNotExportable: there are none. Pickled weights do not count: loading them runs code of their
        author.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelNotExportable(
            "the model has no weights that are safe to load",
            got=sorted(path.name for path in folder.iterdir())[:8],
            expected="model.safetensors",
        )
    return files


def digest_of(files: Iterable[Path]) -> str:
    """The SHA-256 over the files one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
