package dev.hetlora.folder

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.util.concurrent.TimeUnit

class FolderLockTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private fun assertInUse(root: File) {
        val error = assertThrows(HetloraException::class.java) { FolderFiles(root).lock() }
        assertEquals(ErrorCode.SETTINGS_INVALID, error.code)
        assertEquals("the device folder is in use", error.what)
    }

    @Test
    fun `a folder is held by one of a process at a time, by whatever name`() {
        val root = temporary.newFolder()
        FolderFiles(root).lock().use {
            assertInUse(root)
            assertInUse(File(root, "../${root.name}"))
            FolderFiles(temporary.newFolder()).lock().close() // another folder is free
        }
        FolderFiles(root).lock().close()
    }

    @Test
    fun `a refusal does not give up the lock of the one who has it`() {
        val root = temporary.newFolder()
        FolderFiles(root).lock().use {
            assertInUse(root)
            assertEquals("", outputOf(holder(root)))
        }
    }

    @Test
    fun `a folder that another process holds is free once that is killed`() {
        val root = temporary.newFolder()
        val holder = holder(root)
        try {
            assertEquals("held", holder.inputStream.bufferedReader().readLine())
            assertInUse(root)
        } finally {
            holder.destroyForcibly().waitFor()
        }
        FolderFiles(root).lock().close()
    }

    @Test
    fun `a thread that was interrupted gets the lock, and stays interrupted`() {
        Thread.currentThread().interrupt()
        val root = temporary.newFolder()
        FolderFiles(root).lock().use { assertInUse(root) }
        assertTrue(Thread.interrupted())
    }

    private fun holder(root: File): Process {
        val java = File(System.getProperty("java.home"), "bin/java").path
        val command = listOf(java, "-cp", System.getProperty("java.class.path"), "dev.hetlora.folder.LockHolderKt", root.path)
        return ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start()
    }

    private fun outputOf(process: Process): String {
        assertTrue(process.waitFor(60, TimeUnit.SECONDS))
        return process.inputStream.bufferedReader().readText()
    }
}
