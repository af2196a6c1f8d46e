"""lora_B where it never leaves the device (FedSA-LoRA): kept from round to round of a run."""

from __future__ import annotations

import logging

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.training.run_tensors import fitted, kept_tensors
from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.errors import InputError
from hetlora.partial_tensors import shaped
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import check_keys, factor_keys

logger = logging.getLogger(__name__)


def with_private_factors(database: DeviceDatabase, run_id: str, received: Adapter) -> Adapter:
    """The adapter received, under the lora_B that this device kept in an earlier round of the run.

    At another rank these are its leading columns, or zeros beyond them. Where there is none, or it cannot be
    read, training begins with the one received.
    """
    try:
        kept = _read(database, run_id, received)
    except InputError as error:
        logger.warning("run=%s event=private_factors_lost error=%s", run_id, error)
        return received
    if kept is None:
        return received
    return Adapter(
        received.spec,
        {
            module.name: LoraFactors(own.lora_A, fitted(kept[module.name], own.lora_B.shape))
            for module, own in received
        },
    )


def private_factors_to_bytes(adapter: Adapter) -> bytes:
    """lora_B of all modules, as the next round of the run is to find it."""
    return tensors_to_bytes({factor_keys(module.name)[1]: own.lora_B for module, own in adapter})


def _read(database: DeviceDatabase, run_id: str, like: Adapter) -> dict[str, Tensor] | None:
    tensors = kept_tensors(database, "private_factors", run_id)
    if tensors is None:
        return None
    keys = {module.name: factor_keys(module.name)[1] for module, _ in like}
    check_keys(tensors, keys.values())
    kept = {}
    for module, _ in like:
        key = keys[module.name]
        kept[module.name] = shaped(tensors, key, (module.out_features, *tensors[key].shape[-1:]))
    return kept
