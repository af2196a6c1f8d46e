package dev.hetlora.ort

import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession.SessionOptions
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import java.io.File

private val lacksOfMemory = listOf("bad_alloc", "Failed to allocate memory", "BFCArena::Extend")

/**
 * An ordinary session over a graph; weights outside the graph are mapped from their file.
 *
 * @param threads of every kernel; null: one for each core.
 * @throws HetloraException `bundle_invalid`: the graph, or the file of weights beside it, cannot be loaded.
 * @throws OutOfMemoryError there is no memory for it.
 */
internal fun openSession(graph: File, threads: Int?): GraphSession = try {
    sessionOptions(threads).use {
        GraphSession(graph.name, OrtEnvironment.getEnvironment().createSession(graph.path, it))
    }
} catch (error: OrtException) {
    if (isLackOfMemory(error)) throw OutOfMemoryError("there is no memory for ${graph.name}")
    val got = error.message.orEmpty()
    throw HetloraException(
        ErrorCode.BUNDLE_INVALID, "${graph.name} cannot be loaded", got, "a graph for ONNX Runtime", error,
    )
}

internal fun sessionOptions(threads: Int?): SessionOptions {
    val options = SessionOptions()
    options.setIntraOpNumThreads(threads?.coerceAtMost(Runtime.getRuntime().availableProcessors()) ?: 0)
    options.setInterOpNumThreads(1)
    // What it logs of an error quotes numbers of the batch, which are somebody's text.
    options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL)
    // Threads that spin while they wait burn battery.
    options.addConfigEntry("session.intra_op.allow_spinning", "0")
    // By its name alone a file may be taken for one of ORT's own format, which no one has checked.
    options.addConfigEntry("session.load_model_format", "ONNX")
    // Kernels would copy float32 weights into a layout of their own, for each session that has them.
    options.addConfigEntry("session.disable_prepacking", "1")
    // It would move decoders of frozen weights about, and compute in int8 what is to be exact,
    options.addConfigEntry("session.disable_quant_qdq", "1")
    // or decode quantised weights once and for all.
    options.addConfigEntry("optimization.disable_specified_optimizers", "ConstantFolding")
    return options
}

/**
 * What a kernel makes of a batch whose names and shapes were right.
 *
 * @throws HetloraException `data_unreadable`: it fails. Its words are not told, which may quote somebody's text.
 * @throws OutOfMemoryError there is no memory for the batch.
 */
internal inline fun <T> refusingBatch(run: () -> T): T = try {
    run()
} catch (error: OrtException) {
    if (isLackOfMemory(error)) throw OutOfMemoryError("there is no memory for the batch")
    throw HetloraException(
        ErrorCode.DATA_UNREADABLE, "the model refuses the batch", error.code,
        "token numbers and lengths that the model knows",
    )
}

// The arena, and whoever catches what C++ throws, have words for it and no class.
internal fun isLackOfMemory(error: OrtException): Boolean = lacksOfMemory.any { it in error.message.orEmpty() }
