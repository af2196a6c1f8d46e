package dev.hetlora.training

import dev.hetlora.contract.contractJson
import dev.hetlora.identity.bytesOfHex
import dev.hetlora.messages.TrainingSettings
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.decodeFromJsonElement
import kotlinx.serialization.json.double
import kotlinx.serialization.json.float
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder

class TrainingContractTest {
    private val batch = mapOf(LABELS to Int64Tensor(intArrayOf(1), longArrayOf(0)))
    private val cases = contractJson("training_steps.json").jsonObject.getValue("cases").jsonArray.map { it.jsonObject }

    @Test
    fun stepsLeaveTheBitsThatPythonsLeave() {
        assertEquals(6, cases.size)
        for (case in cases) {
            val name = case.getValue("name").jsonPrimitive.content
            val steps = case.getValue("steps").jsonArray.map { it.jsonObject }
            val trainer = trainerOf(case, steps)
            for (step in steps) {
                val loss = step.getValue("loss").jsonPrimitive.double
                assertEquals(name, loss, trainer.step(batch), 1e-6 * loss)
                val factors = trainer.factors()
                for ((key, hex) in step.getValue("factors").jsonObject) {
                    assertArrayEquals("$key of $name", floatsOf(hex.jsonPrimitive.content), factors.getValue(key), 0f)
                }
            }
        }
    }

    @Test
    fun trainingGoesOnFromItsStateToTheSameBits() {
        for (case in cases) {
            val steps = case.getValue("steps").jsonArray.map { it.jsonObject }
            val killed = trainerOf(case, steps)
            repeat(2) { killed.step(batch) }
            val state = trainerStateOf(killed.state().toBytes())
            val trainer = trainerOf(case, steps.drop(2))
            trainer.restore(state)
            repeat(steps.size - 2) { trainer.step(batch) }
            assertEquals(steps.size, trainer.stepsDone)
            for ((key, hex) in steps.last().getValue("factors").jsonObject) {
                assertArrayEquals(key, floatsOf(hex.jsonPrimitive.content), trainer.factors().getValue(key), 0f)
            }
        }
    }

    private fun trainerOf(case: JsonObject, steps: List<JsonObject>): Trainer {
        val factors = case.getValue("factors").jsonObject.mapValues { (_, own) -> tensorOf(own.jsonObject) }
        val untrained = case.getValue("untrained").jsonArray.map { it.jsonPrimitive.content }
        val trained = factors.keys.filter { it.endsWith(".lora_A.weight") }
            .filterNot { key -> untrained.any { ".$it." in key } }
            .map { it to it.replace(".lora_A.", ".lora_B.") }
        val constants = case.getValue("constants").jsonObject.mapValues { it.value.jsonPrimitive.double }
        val subject = TrainingSubject(
            factors,
            trained,
            AdamWConstants(
                constants.getValue("beta1"),
                constants.getValue("beta2"),
                constants.getValue("epsilon"),
                constants.getValue("weight_decay"),
            ),
        )
        val answers = steps.map { step ->
            val gradients = step.getValue("gradients").jsonObject.mapValues { numbersOf(it.value) }
            step.getValue("task_loss").jsonPrimitive.double to gradients
        }
        val settings = Json.decodeFromJsonElement<TrainingSettings>(case.getValue("settings"))
        return Trainer(GivenGradients(answers.iterator()), subject, settings)
    }
}

private fun tensorOf(told: JsonObject): TensorView =
    TensorView(
        told.getValue("shape").jsonArray.map { it.jsonPrimitive.int }.toIntArray(), numbersOf(told.getValue("numbers")), 0,
    )

private fun numbersOf(told: JsonElement): FloatArray =
    told.jsonArray.map { it.jsonPrimitive.float }.toFloatArray()

private fun floatsOf(hex: String): FloatArray {
    val bytes = ByteBuffer.wrap(bytesOfHex(hex)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(bytes.remaining()).also { bytes.get(it) }
}
