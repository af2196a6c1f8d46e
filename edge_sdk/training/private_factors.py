"""lora_B where it never leaves the device (FedSA-LoRA): kept from round to round of a run."""

from __future__ import annotations

from edge_sdk.training.fitting import fitted
from hetlora.adapter import Adapter, LoraFactors
from hetlora.partial_tensors import shaped
from hetlora.stored_tensors import Tensors, tensors_to_bytes
from hetlora.tensors import check_keys, factor_keys


def with_private_factors(kept: Tensors, received: Adapter) -> Adapter:
    """The adapter received, under the lora_B that this device kept in an earlier round of the run.

    At another rank these are its leading columns, or zeros beyond them.

    Raises:
        SpecMismatch: what was kept is no lora_B of this model.
    """
    check_keys(kept, [factor_keys(module.name)[1] for module, _ in received])
    factors = {}
    for module, own in received:
        key = factor_keys(module.name)[1]
        lora_B = shaped(kept, key, (module.out_features, *kept[key].shape[-1:]))
        factors[module.name] = LoraFactors(own.lora_A, fitted(lora_B, own.lora_B.shape))
    return Adapter(received.spec, factors)


def private_factors_to_bytes(adapter: Adapter) -> bytes:
    """lora_B of all modules, as the next round of the run is to find it."""
    return tensors_to_bytes({factor_keys(module.name)[1]: own.lora_B for module, own in adapter})
