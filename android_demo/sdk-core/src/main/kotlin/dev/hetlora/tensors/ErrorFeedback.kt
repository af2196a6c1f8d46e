package dev.hetlora.tensors

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.messages.Adaptation

/** An update, and by PEFT key what rounding has left out of it and of those before. */
class UpdateWithErrors(val data: ByteArray, val errors: Map<String, Matrix>)

/**
 * The update of an adapter and of what rounding left out before, and what it has left out now (arXiv 1901.09847).
 *
 * With x received, y trained and e left out so far, Q(y + e - x) is sent; the service reads z = x + Q(...) of it,
 * and y + e - z stays. Errors at another rank count with their leading ranks; those of a factor that is not sent
 * stay.
 */
fun contractWithFeedback(
    adapter: Adapter,
    adaptation: Adaptation,
    received: Adapter,
    errors: Map<String, Matrix>,
): UpdateWithErrors {
    val owed = sentMatrices(adapter, adaptation).mapValues { (key, own) ->
        val left = errors[key]?.fitted(own.rows, own.columns)
        DoubleArray(own.values.size) { own.values[it].toDouble() + (left?.values?.get(it) ?: 0f) }
    }
    val target = replaced(adapter, owed)
    val data = contract(target, adaptation, received)
    // What the service reads, bit for bit: so the rounding of its sum is among the errors, too.
    val seen = toMatrices(expand(data, adaptation, received))
    val left = owed.mapValues { (key, own) ->
        val read = seen.getValue(key)
        Matrix(read.rows, read.columns, FloatArray(own.size) { (own[it] - read.values[it]).toFloat() })
    }
    return UpdateWithErrors(data, errors + left)
}

/** What rounding left out, as it is kept from round to round of one run. */
fun errorsToBytes(errors: Map<String, Matrix>): ByteArray = safetensorsToBytes(errors.mapValues { tensorOf(it.value) })

/**
 * Errors that were kept in an earlier round.
 *
 * @throws HetloraException [ErrorCode.SPEC_MISMATCH]: they are of another model; [ErrorCode.MALFORMED_TENSORS].
 */
fun errorsFromBytes(data: ByteArray, spec: AdapterSpec): Map<String, Matrix> {
    val tensors = readSafetensors(data)
    val widths = spec.modules.flatMap { module ->
        val keys = factorKeys(module.name)
        listOf(keys.loraA to module.inFeatures, keys.loraB to module.outFeatures)
    }.toMap()
    return tensors.mapValues { (key, tensor) ->
        checkDtype(key, tensor, Dtype.F32)
        val features = tensor.shape.getOrNull(if (key.endsWith(".lora_B.weight")) 0 else 1)
        if (tensor.shape.size != 2 || features != widths[key]) {
            refuse("shape of $key", tensor.shape, "a factor of this model")
        }
        matrixOf(key, tensors)
    }
}

/** The adapter with these numbers, rounded to float32, in the place of its own. */
private fun replaced(adapter: Adapter, numbers: Map<String, DoubleArray>): Adapter {
    fun of(key: String, own: Matrix): Matrix {
        val given = numbers[key] ?: return own
        return Matrix(own.rows, own.columns, FloatArray(given.size) { given[it].toFloat() })
    }
    val factors = adapter.factors.mapValues { (name, own) ->
        val keys = factorKeys(name)
        LoraFactors(of(keys.loraA, own.loraA), of(keys.loraB, own.loraB))
    }
    return Adapter(adapter.spec, factors)
}
