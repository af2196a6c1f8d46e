package dev.hetlora.tensors

import dev.hetlora.errors.HetloraException

/** lora_B of all modules, where it never leaves the device (FedSA-LoRA), as the next round of the run finds it. */
fun privateFactorsToBytes(adapter: Adapter): ByteArray = safetensorsToBytes(
    adapter.factors.entries.associate { (name, own) -> factorKeys(name).loraB to tensorOf(own.loraB) },
)

/**
 * The adapter received, under the lora_B that this device kept in an earlier round of the run.
 *
 * At another rank these are its leading columns, or zeros beyond them.
 *
 * @throws HetloraException `spec_mismatch`: what was kept is no lora_B of this model; `malformed_tensors`,
 *     `non_finite_values`.
 */
fun withPrivateFactors(kept: ByteArray, received: Adapter): Adapter {
    val tensors = readSafetensors(kept, maxHeaderBytes(received.spec))
    checkKeys(tensors.keys, received.factors.keys.map { factorKeys(it).loraB })
    return Adapter(
        received.spec,
        received.factors.mapValues { (name, own) ->
            val key = factorKeys(name).loraB
            val loraB = finiteMatrix(key, tensors)
            if (loraB.rows != own.loraB.rows) refuse("shape of $key", "${loraB.rows} rows", "${own.loraB.rows}")
            LoraFactors(own.loraA, loraB.fitted(own.loraB.rows, own.rank))
        },
    )
}
