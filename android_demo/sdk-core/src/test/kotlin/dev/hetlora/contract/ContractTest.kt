package dev.hetlora.contract

import org.junit.Assert.assertEquals
import org.junit.Test
import java.io.File

class ContractTest {
    // Of rollouts, which this client does not say that it can adopt, so that none is offered (ADR 0037).
    private val ofOthers = setOf("adoption_report.json", "check_in_abilities.json", "check_in_answer_adoption.json")

    @Test
    fun everyLiteralFileIsReadByATestOfSomeModule() {
        val client = File(CONTRACT_FOLDER.absoluteFile.parentFile.parentFile, "android_demo")
        val tests = client.walk()
            .filter { it.extension == "kt" && "/src/test/" in it.invariantSeparatorsPath }
            .joinToString("\n") { it.readText() }
        val unread = CONTRACT_FOLDER.listFiles()!!
            .map(File::getName)
            .filter { it.endsWith(".json") || it.endsWith(".hex") }
            .filterNot { it in ofOthers || "\"$it\"" in tests }
        assertEquals(emptyList<String>(), unread)
    }
}
