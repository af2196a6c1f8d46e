"""lora_B where it never leaves the device (FedSA-LoRA): kept from round to round of one run."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.errors import InputError
from hetlora.partial_tensors import partial_from_bytes, partial_to_bytes, shaped
from hetlora.tensors import check_keys, factor_keys

logger = logging.getLogger(__name__)


def with_private_factors(folder: Path, run_id: str, received: Adapter) -> Adapter:
    """The adapter received, under the lora_B that this device kept in an earlier round of the run.

    At another rank these are its leading columns, or zeros beyond them. Where there is none, or it cannot be
    read, training begins with the one received.
    """
    try:
        kept = _read(_file(folder, run_id), received)
    except FileNotFoundError:
        return received
    except (OSError, InputError) as error:
        logger.warning("run=%s event=private_factors_lost error=%s", run_id, error)
        return received
    return Adapter(
        received.spec,
        {
            module.name: LoraFactors(own.lora_A, _fitted(kept[module.name], own.lora_B))
            for module, own in received
        },
    )


def keep_private_factors(folder: Path, run_id: str, adapter: Adapter) -> None:
    """Write lora_B of all modules to disk; the file is there whole, or as it was."""
    path = _file(folder, run_id)
    aside = path.with_suffix(".part")
    aside.write_bytes(partial_to_bytes({factor_keys(module.name)[1]: own.lora_B for module, own in adapter}))
    os.replace(aside, path)


def drop_other_runs(folder: Path, run_id: str) -> None:
    """Remove what other runs kept: none of them goes on beside this one."""
    for path in folder.iterdir():
        if path != _file(folder, run_id):
            path.unlink()


def _read(path: Path, like: Adapter) -> dict[str, Tensor]:
    tensors = partial_from_bytes(path.read_bytes())
    keys = {module.name: factor_keys(module.name)[1] for module, _ in like}
    check_keys(tensors, keys.values())
    kept = {}
    for module, _ in like:
        key = keys[module.name]
        kept[module.name] = shaped(tensors, key, (module.out_features, *tensors[key].shape[-1:]))
    return kept


def _fitted(kept: Tensor, received: Tensor) -> Tensor:
    fitted = np.zeros_like(received)
    rank = min(kept.shape[1], fitted.shape[1])
    fitted[:, :rank] = kept[:, :rank]
    return fitted


def _file(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.safetensors"
