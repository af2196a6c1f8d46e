"""lora_B where it never leaves the device (FedSA-LoRA): kept from round to round of a run."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import numpy as np

from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.errors import InputError
from hetlora.partial_tensors import read_partial, shaped
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import check_keys, factor_keys

logger = logging.getLogger(__name__)

KEPT_RUNS: Final = 4


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
    """Write lora_B of all modules to disk; the file is there whole, or as it was.

    Only the runs that wrote last keep theirs, `KEPT_RUNS` of them: a population may have several at once, and
    nobody tells a device that one has ended.
    """
    path = _file(folder, run_id)
    aside = folder / "incomplete"  # one name: what a killed process left is written over
    aside.write_bytes(tensors_to_bytes({factor_keys(module.name)[1]: own.lora_B for module, own in adapter}))
    os.replace(aside, path)
    _drop_oldest(folder)


def _drop_oldest(folder: Path) -> None:
    newest = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in newest[KEPT_RUNS:]:
        path.unlink()


def _read(path: Path, like: Adapter) -> dict[str, Tensor]:
    tensors = read_partial(path.read_bytes())
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
