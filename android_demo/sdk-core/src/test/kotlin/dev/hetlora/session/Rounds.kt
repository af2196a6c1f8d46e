package dev.hetlora.session

import dev.hetlora.folder.DeviceFiles
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.CapabilityReport
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Offer
import dev.hetlora.messages.Plan
import dev.hetlora.messages.StartRequest
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.planning.Bound
import dev.hetlora.planning.Forecast
import dev.hetlora.planning.Planner
import dev.hetlora.planning.RankChoice
import dev.hetlora.planning.StepPlan
import dev.hetlora.probe.Capabilities
import dev.hetlora.tensors.Adapter
import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.LoraFactors
import dev.hetlora.tensors.Matrix
import dev.hetlora.tensors.ModuleSpec
import dev.hetlora.tensors.adapterToBytes
import dev.hetlora.tensors.truncate
import dev.hetlora.transport.FakeService
import dev.hetlora.transport.HttpConnections
import dev.hetlora.transport.Shortest
import dev.hetlora.transport.testConnections
import java.time.Instant

val SPEC = AdapterSpec(listOf(ModuleSpec("layer", 6, 5)), 2.0, 4)

/** The fourth rank of its lora_B is 0, as in a new adapter. */
val GLOBAL = Adapter(
    SPEC,
    mapOf(
        "layer" to LoraFactors(
            Matrix(4, 6, FloatArray(24) { (it - 12) / 16f }),
            Matrix(5, 4, FloatArray(20) { (it % 4 - 3) / 8f }),
        ),
    ),
)

/** How a device takes an offer that does not plan. */
fun fixedRank(rank: Int, tokens: Int, rows: Int) =
    RankChoice(rank, Bound.OFFER, Forecast(0, 1.0, 1, 0, 0), StepPlan(rows, tokens, rank, rows), tokens)

val GIVEN = CapabilityReport(CapabilitySource.GIVEN, 2, 1L shl 32, 1L shl 31, 1e10, 1L shl 30)

private val GRAPH = "a training graph".toByteArray()

/** A fake service with rounds on a bundle of one module of 6 x 5, and devices that visit it. */
class Rounds(val service: FakeService = FakeService(), graph: ByteArray = GRAPH) : AutoCloseable {
    var adaptation = Adaptation()
    private val bundle: ObjectRef

    init {
        val file = service.put(graph)
        bundle = service.put(manifest("""{"sha256": "${file.sha256}", "size_bytes": ${file.sizeBytes}}"""))
        service.plan = ::plan
    }

    override fun close() = service.close()

    /** Offer work; a repeated offer under another name is another assignment. */
    fun offer(
        id: String = "a-1",
        training: TrainingSettings = TrainingSettings(steps = 4, pruningDecay = 1.0),
        minRank: Int = 1,
    ): Offer = Offer(
        assignmentId = id, runId = "run-1", roundIndex = 0, bundle = bundle, minRank = minRank, maxRank = 4,
        roundSeconds = 600.0, training = training, leaseExpiresAt = Instant.parse("2030-01-01T00:00:00Z"),
    ).also { service.offer = it }

    fun client(
        files: DeviceFiles,
        trainers: LocalTrainers = ToyTrainers(),
        rank: Int = 2,
        connections: HttpConnections = testConnections(),
        clock: () -> Double = { System.currentTimeMillis() / 1000.0 },
        onEvent: (Event) -> Unit = {},
        circumstances: Circumstances = AnyTime,
    ) = EdgeClient(
        service.url, Membership("fleet", "token"), files, trainers, { GIVEN },
        circumstances, connections, clock = clock, random = Shortest, onEvent = onEvent,
        chooser = { _, _ -> fixedRank(rank, 16, 4) },
    )

    /** A device that plans. */
    fun planning(
        files: DeviceFiles,
        trainers: LocalTrainers,
        capabilities: Capabilities = Capabilities { GIVEN },
        circumstances: Circumstances = AnyTime,
        onPlanned: (Planner, RankChoice) -> Unit = { _, _ -> },
    ) = EdgeClient(
        service.url, Membership("fleet", "token"), files, trainers, capabilities,
        circumstances, testConnections(), random = Shortest, onPlanned = onPlanned,
    )

    private fun plan(offer: Offer, request: StartRequest): Plan {
        val adapter = service.put(adapterToBytes(truncate(GLOBAL, request.rank)))
        return Plan(offer.assignmentId, request.rank, adapter, 3, offer.leaseExpiresAt, adaptation)
    }

    private fun manifest(graph: String): ByteArray = """
        {"schema_version": 1, "task": "text-classification", "labels": ["a", "b"], "max_tokens": 16,
         "base_model": {"id": "toy", "revision": null, "sha256": "${"ab".repeat(32)}", "parameters": 30},
         "adapter": {"modules": [{"name": "layer", "in_features": 6, "out_features": 5}], "scaling": 2.0,
                     "max_rank": 4},
         "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "tokens"]}],
         "optimizer": {"name": "AdamW", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0},
         "graphs": {"training": "training.onnx", "eval": "training.onnx", "optimizer": "training.onnx",
                    "inference": "training.onnx", "base_weights": "training.onnx", "tokenizer": "training.onnx"},
         "cost_model": {"flops": {"per_token": 1}, "written_bytes": {}, "live_bytes": [{}], "most_chunk_rows": 0,
                        "graph_nodes": 1, "base_weight_bytes": 120, "adapter_bytes_per_rank": 44},
         "versions": {"hetlora": "0", "onnx": "0", "onnxruntime": "0", "opset": 17, "ir_version": 9},
         "files": {"training.onnx": $graph}}
    """.trimIndent().toByteArray()
}

/** What the toy makes of the global adapter at a rank in so many steps. */
fun toyTrained(rank: Int, steps: Int): Adapter =
    (1..steps).fold(truncate(GLOBAL, rank)) { adapter, step -> toyStep(adapter, 3, step) }
