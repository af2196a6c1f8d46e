package dev.hetlora.training

import dev.hetlora.contract.contractJson
import dev.hetlora.identity.bytesOfHex
import dev.hetlora.identity.hexOf
import dev.hetlora.messages.Adaptation
import dev.hetlora.messages.ObjectRef
import dev.hetlora.messages.Plan
import dev.hetlora.messages.Trained
import dev.hetlora.messages.TrainingSettings
import dev.hetlora.session.Assigned
import dev.hetlora.session.Received
import dev.hetlora.session.contracted
import dev.hetlora.session.readAssigned
import dev.hetlora.tensors.AdapterSpec
import dev.hetlora.tensors.ModuleSpec
import dev.hetlora.tensors.factorKeys
import dev.hetlora.tensors.privateFactorsToBytes
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.decodeFromJsonElement
import kotlinx.serialization.json.double
import kotlinx.serialization.json.float
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.time.Instant

/** Rounds as Python has them: what a plan sends, what the model is fed in five steps, and what goes back. */
class AdaptationContractTest {
    private val spec = AdapterSpec(listOf(ModuleSpec("h.0.k", 3, 4), ModuleSpec("h.0.q", 4, 3)), 2.0, 3)
    private val batch = mapOf(LABELS to Int64Tensor(intArrayOf(1), longArrayOf(0)))
    private val cases = contractJson("adaptations.json").jsonObject.getValue("cases").jsonArray.map { it.jsonObject }

    @Test
    fun roundsUnderEveryAdaptationSendTheBytesThatPythonSends() {
        assertEquals(11, cases.size)
        for (case in cases) {
            val name = case.getValue("name").jsonPrimitive.content
            val assigned = assignedOf(case)
            val trainer = BatchTrainer(trainerOf(case, assigned), assigned.received) { generateSequence { batch }.iterator() }
            for (step in case.getValue("steps").jsonArray.map { it.jsonObject }) {
                val loss = step.getValue("loss").jsonPrimitive.double
                assertEquals(name, loss, trainer.step(), 1e-6 * loss)
            }
            for ((key, hex) in case.getValue("trained").jsonObject) {
                val (keyA, _) = factorKeys("h.0.k")
                val module = if (key.startsWith(keyA.substringBefore(".lora_A"))) "h.0.k" else "h.0.q"
                val own = trainer.adapter().factors.getValue(module)
                val numbers = if (key.endsWith("lora_A.weight")) own.loraA.values else own.loraB.values
                assertArrayEquals("$key of $name", floatsOf(hex.jsonPrimitive.content), numbers, 0f)
            }
            val asked = assigned.how.adaptation
            val (update, errors) =
                contracted(trainer.adapter(), asked, assigned.received, trainer.cores(), kept = null)
            assertEquals(name, case.getValue("update").jsonPrimitive.content, hexOf(update))
            assertEquals(name, hexOrNull(case, "errors"), errors?.let(::hexOf))
            val factors = if (asked.privateLoraB) hexOf(privateFactorsToBytes(trainer.adapter())) else null
            assertEquals(name, hexOrNull(case, "private"), factors)
        }
    }

    @Test
    fun trainingUnderAnAdaptationGoesOnFromItsCheckpointToTheSameBytes() {
        for (case in cases) {
            val assigned = assignedOf(case)
            val killed = trainerOf(case, assigned)
            repeat(2) { killed.step(batch) }
            val trainer = trainerOf(case, assigned, from = 2)
            trainer.restore(trainerStateOf(killed.state().toBytes()))
            repeat(3) { trainer.step(batch) }
            for ((key, hex) in case.getValue("trained").jsonObject) {
                assertArrayEquals(key, floatsOf(hex.jsonPrimitive.content), trainer.factors().getValue(key), 0f)
            }
        }
    }

    private fun assignedOf(case: JsonObject): Assigned {
        val asked = Json.decodeFromJsonElement<Adaptation>(case.getValue("adaptation"))
        val ref = ObjectRef("12".repeat(32), 1)
        val plan = Plan("a-1", 3, ref, 0, Instant.parse("2030-01-01T00:00:00Z"), asked)
        val frozen = hexOrNull(case, "frozen")?.let(::bytesOfHex)
        val received = Received(bytesOfHex(case.getValue("sent").jsonPrimitive.content), frozen)
        return readAssigned(plan, received, spec, rank = 3)
    }

    private fun trainerOf(case: JsonObject, assigned: Assigned, from: Int = 0): Trainer {
        val steps = case.getValue("steps").jsonArray.map { it.jsonObject }.drop(from)
        val subject = TrainingSubject(
            viewsOf(assigned.received),
            spec.modules.map { module -> factorKeys(module.name).run { loraA to loraB } },
            how = assigned.how,
        )
        val settings = Json.decodeFromJsonElement<TrainingSettings>(case.getValue("settings"))
        // Sums of products with cores have an order of their own.
        val tolerance = if (assigned.how.adaptation.trained == Trained.CORE) 1e-5f else 0f
        return Trainer(CheckedFeeds(steps.iterator(), tolerance), subject, settings)
    }

    private fun hexOrNull(case: JsonObject, name: String): String? =
        case.getValue(name).takeIf { it != JsonNull }?.jsonPrimitive?.content
}

/** A runtime that answers gradients out of a list, and looks at what it is fed. */
private class CheckedFeeds(private val steps: Iterator<JsonObject>, private val tolerance: Float) : TrainingRuntime {
    override fun gradients(batch: Batch, factors: Map<String, TensorView>, gradients: FlatTensors): Double {
        val step = steps.next()
        val fed = step.getValue("fed").jsonObject
        assertEquals(fed.keys, factors.keys)
        for ((key, hex) in fed) {
            assertArrayEquals(key, floatsOf(hex.jsonPrimitive.content), factors.getValue(key).copy(), tolerance)
        }
        for ((key, place) in gradients.tensors) {
            val own = step.getValue("gradients").jsonObject.getValue(key).jsonArray.map { it.jsonPrimitive.float }
            assertEquals(key, own.size, place.size)
            own.toFloatArray().copyInto(gradients.numbers, place.start)
        }
        return step.getValue("task_loss").jsonPrimitive.double
    }

    override fun evaluate(batch: Batch, factors: Map<String, TensorView>): Evaluation = error("nothing is scored")

    override fun close() = Unit
}

private fun floatsOf(hex: String): FloatArray {
    val bytes = ByteBuffer.wrap(bytesOfHex(hex)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(bytes.remaining()).also { bytes.get(it) }
}
