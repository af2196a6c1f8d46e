package dev.hetlora.session

import dev.hetlora.bundle.Bundle
import dev.hetlora.contract.contractJson
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.DeviceFiles
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.messages.CapabilitySource
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.planning.Planner
import dev.hetlora.planning.StepPlan
import dev.hetlora.planning.StepsTaken
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

private const val MB = 1_000_000L

/** Runs that name variants of their bundle: which one a device takes (docs/adr/0028). */
class VariantsTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val rounds = Rounds()
    private val service = rounds.service
    private val taken = mutableListOf<String?>()
    private val own = bundle("float32", weightBytes = 1000 * MB)
    private val rounded = bundle("int8", weightBytes = 250 * MB)

    init {
        val plan = service.plan
        service.plan = { offer, request -> plan(offer, request).also { taken += request.variant } }
    }

    @After
    fun close() = rounds.close()

    private fun files() = FolderFiles(temporary.newFolder())

    private fun bundle(precision: String, weightBytes: Long, scaling: Double = 2.0, graph: String = precision): ObjectRef {
        val base = contractJson("planning.json").jsonObject.getValue("base").jsonObject.getValue("manifest").jsonObject
        fun told(json: String) = Json.parseToJsonElement(json)
        val graphRef = service.put("graph $graph".toByteArray())
        val files = base.getValue("files").jsonObject +
            ("training.onnx" to told("""{"sha256": "${graphRef.sha256}", "size_bytes": ${graphRef.sizeBytes}}"""))
        val costs: Map<String, JsonElement> = base.getValue("cost_model").jsonObject + mapOf(
            "base_weight_bytes" to JsonPrimitive(weightBytes), "adapter_bytes_per_rank" to JsonPrimitive(44),
            "live_bytes" to told("[{}]"),
        )
        val adapter = """
            {"modules": [{"name": "layer", "in_features": 6, "out_features": 5}], "scaling": $scaling, "max_rank": 4}
        """
        val manifest = base + mapOf(
            "base_precision" to JsonPrimitive(precision), "adapter" to told(adapter), "max_tokens" to JsonPrimitive(16),
            "cost_model" to JsonObject(costs), "files" to JsonObject(files),
        )
        return service.put(JsonObject(manifest).toString().toByteArray())
    }

    private fun offer(vararg variants: ObjectRef, id: String = "a-1") {
        rounds.offer(id, TrainingSettings(steps = 4, pruningDecay = 1.0, maxTokens = 16))
        service.offer = service.offer!!.copy(bundle = own, variants = variants.toList())
    }

    private fun visit(
        megabytes: Long,
        files: DeviceFiles = files(),
        trainers: LocalTrainers = ToyTrainers(),
        source: CapabilitySource = CapabilitySource.GIVEN,
        onPlanned: (Planner) -> Unit = {},
    ): Visit {
        val capabilities = GIVEN.copy(source = source, memoryAvailableBytes = megabytes * MB)
        return rounds.planning(files, trainers, { capabilities }) { planner, _ -> onPlanned(planner) }.runOnce()
    }

    private fun fetched(ref: ObjectRef) = service.requests.count { it == "GET /objects/${ref.sha256}" }

    @Test
    fun `the run's own bundle is taken where it fits at the highest rank, and no other is read`() {
        offer(rounded)
        // 0.7 of 1,600 MB is 1,120: the weights' 1,000 and 101 of the process.
        assertEquals(Outcome.ACCEPTED, visit(1600).outcome)
        assertEquals(listOf<String?>(null), taken)
        assertEquals(0, fetched(rounded))
    }

    @Test
    fun `a device that the run's own bundle does not fit takes the variant that does, and goes on with it`() {
        offer(rounded)
        val files = files()
        val killing = object : LocalTrainers by ToyTrainers() {
            override fun open(task: TrainingTask): LocalTrainer = throw Killed()
        }
        assertThrows(Killed::class.java) { visit(1000, files, killing) }
        var opened: String? = null
        val noting = object : LocalTrainers by ToyTrainers() {
            override fun open(task: TrainingTask) = ToyTrainers().open(task).also { opened = task.bundle.digest }
        }
        assertEquals(Outcome.ACCEPTED, visit(1000, files, noting).outcome)
        assertEquals(listOf<String?>(rounded.sha256), taken)
        assertEquals(rounded.sha256, opened)
        assertEquals(4, service.reports.single().rank)
    }

    @Test
    fun `a variant that cannot be fetched, or is of another adapter, leaves the choice to the others`() {
        val gone = bundle("bfloat16", weightBytes = 200 * MB).also { service.objects -= it.sha256 }
        val another = bundle("int4", weightBytes = 100 * MB, scaling = 1.0)
        offer(gone, another, rounded)
        assertEquals(Outcome.ACCEPTED, visit(1000).outcome)
        assertEquals(listOf<String?>(rounded.sha256), taken)
        assertEquals(listOf(1, 1), listOf(fetched(gone), fetched(another)))
    }

    @Test
    fun `a device that no bundle fits declines with what is wrong with the run's own, and takes nothing`() {
        offer(rounded)
        val visit = visit(400)
        assertEquals(Outcome.FAILED, visit.outcome)
        assertEquals("device_too_small", service.failures.single().code)
        // The run's own would take 1,000 MB and 96 MiB.
        assertEquals("1050 MiB to train in", (visit.error as HetloraException).expected)
        assertEquals(emptyList<String?>(), taken)
    }

    @Test
    fun `a bundle whose trial takes too much memory gives way to the next, and each is tried once`() {
        val tried = mutableListOf<String>()
        val trainers = object : LocalTrainers by ToyTrainers() {
            override fun tryOut(bundle: Bundle, step: StepPlan, training: TrainingSettings, mayGoOn: () -> Unit): StepsTaken {
                tried += bundle.digest
                // The run's own takes three times its forecast of 1.1 GB, the other what it is forecast to.
                return StepsTaken(1e-3, if (bundle.digest == own.sha256) 3200 * MB else 250 * MB)
            }
        }
        val files = files()
        for (round in 1..2) {
            offer(rounded, id = "a-$round")
            // 0.7 of 4,000 MB are less than the 3.3 GB.
            assertEquals(Outcome.ACCEPTED, visit(4000, files, trainers, CapabilitySource.MEASURED).outcome)
        }
        assertEquals(listOf(own.sha256, rounded.sha256), tried)
        assertEquals(listOf<String?>(rounded.sha256, rounded.sha256), taken)
    }

    @Test
    fun `the longest example counts once the bundle is here, and what grows beyond it is cut`() {
        val counted = mutableListOf<Int?>()
        val opened = mutableListOf<Int>()
        val trainers = object : LocalTrainers by ToyTrainers() {
            override fun longestTokens(bundle: Bundle, training: TrainingSettings): Int? = 7
            override fun open(task: TrainingTask) = ToyTrainers().open(task).also { opened += task.training.maxTokens }
        }
        val files = files()
        for (round in 1..2) {
            offer(id = "a-$round")
            val visit = visit(1600, files, trainers) { counted += it.longestTokens }
            assertEquals(Outcome.ACCEPTED, visit.outcome)
        }
        assertEquals(listOf(null, 7), counted)
        assertEquals(listOf(16, 7), opened)
    }

    @Test
    fun `work that no longer fits the memory is given back before it goes on`() {
        offer()
        val files = files()
        val killing = object : LocalTrainers by ToyTrainers() {
            override fun open(task: TrainingTask): LocalTrainer = throw Killed()
        }
        assertThrows(Killed::class.java) { visit(1600, files, killing) }
        val visit = visit(1000, files)
        assertEquals(Outcome.FAILED, visit.outcome)
        assertEquals(ErrorCode.DEVICE_TOO_SMALL, (visit.error as HetloraException).code)
        assertEquals(Progress.GIVEN_UP, AssignmentStore(files).assignment!!.progress)
    }
}
