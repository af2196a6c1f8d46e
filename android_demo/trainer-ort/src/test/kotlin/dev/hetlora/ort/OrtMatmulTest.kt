package dev.hetlora.ort

import dev.hetlora.contract.contractJson
import dev.hetlora.probe.LinuxSources
import dev.hetlora.probe.MeasuredRates
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class OrtMatmulTest {
    @Test
    fun `the product is that of the page`() {
        val own = contractJson("product.json").jsonObject
        assertEquals(own.getValue("onnx_base64").jsonPrimitive.content, Product.ONNX_BASE64)
        val sizes = listOf("rows", "inner", "columns").map { own.getValue(it).jsonPrimitive.int }
        assertEquals(sizes, listOf(Product.ROWS, Product.INNER, Product.COLUMNS))
    }

    @Test
    fun `the runtime multiplies faster than plain Kotlin`() {
        val plain = MeasuredRates(LinuxSources()).matmulFlopsPerSecond()!!
        assertTrue(ortMatmul()!! > 1.2 * plain)
    }
}
