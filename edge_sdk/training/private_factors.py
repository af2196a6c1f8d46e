"""lora_B where it never leaves the device (FedSA-LoRA): kept from round to round of a run."""

from __future__ import annotations

import logging
from pathlib import Path

from edge_sdk.training.run_tensors import fitted, keep_tensors, kept_tensors
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.errors import InputError
from hetlora.partial_tensors import shaped
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import check_keys, factor_keys

logger = logging.getLogger(__name__)


def with_private_factors(folder: Path, run_id: str, received: Adapter) -> Adapter:
    """The adapter received, under the lora_B that this device kept in an earlier round of the run.

    At another rank these are its leading columns, or zeros beyond them. Where there is none, or it cannot be
    read, training begins with the one received.
    """
    try:
        kept = _read(folder, run_id, received)
    except FileNotFoundError:
        return received
    except (OSError, InputError) as error:
        logger.warning("run=%s event=private_factors_lost error=%s", run_id, error)
        return received
    return Adapter(
        received.spec,
        {
            module.name: LoraFactors(own.lora_A, fitted(kept[module.name], own.lora_B.shape))
            for module, own in received
        },
    )


def keep_private_factors(folder: Path, run_id: str, adapter: Adapter) -> None:
    """Write lora_B of all modules to disk, as `keep_tensors` does."""
    lora_B = {factor_keys(module.name)[1]: own.lora_B for module, own in adapter}
    keep_tensors(folder, run_id, tensors_to_bytes(lora_B))


def _read(folder: Path, run_id: str, like: Adapter) -> dict[str, Tensor]:
    tensors = kept_tensors(folder, run_id)
    keys = {module.name: factor_keys(module.name)[1] for module, _ in like}
    check_keys(tensors, keys.values())
    kept = {}
    for module, _ in like:
        key = keys[module.name]
        kept[module.name] = shaped(tensors, key, (module.out_features, *tensors[key].shape[-1:]))
    return kept
