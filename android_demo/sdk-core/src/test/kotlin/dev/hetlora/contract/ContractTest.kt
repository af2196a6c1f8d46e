package dev.hetlora.contract

import org.junit.Assert.assertEquals
import org.junit.Test
import java.io.File

class ContractTest {
    @Test
    fun everyLiteralFileIsReadByATestOfSomeModule() {
        val client = File(CONTRACT_FOLDER.absoluteFile.parentFile.parentFile, "android_demo")
        val tests = client.walk()
            .filter { it.extension == "kt" && "/src/test/" in it.invariantSeparatorsPath }
            .joinToString("\n") { it.readText() }
        val unread = CONTRACT_FOLDER.listFiles()!!
            .map(File::getName)
            .filter { it.endsWith(".json") || it.endsWith(".hex") }
            .filterNot { "\"$it\"" in tests }
        assertEquals(emptyList<String>(), unread)
    }
}
