package dev.hetlora.folder

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assume.assumeTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.file.Files

class FolderFilesTest {
    @get:Rule
    val temporary = TemporaryFolder()

    @Test
    fun `a file is replaced as a whole, and nothing temporary stays`() {
        val files = FolderFiles(temporary.newFolder())
        files.replace("a/b", byteArrayOf(1, 2))
        files.replace("a/b", byteArrayOf(3))

        assertArrayEquals(byteArrayOf(3), files.read("a/b"))
        assertEquals(listOf("b"), files.list("a"))
        files.remove("a")
        assertNull(files.read("a/b"))
    }

    @Test
    fun `a full disk is told as one, and another refusal of the system is not`() {
        assumeTrue(File("/dev/full").exists())
        val root = temporary.newFolder()
        Files.createSymbolicLink(File(root, "full").toPath(), File("/dev/full").toPath())
        val files = FolderFiles(root)
        File(root, "folder/inner").mkdirs()

        fun refusal(path: String) = assertThrows(HetloraException::class.java) {
            files.write(path).use { it.write(ByteArray(10)) }
        }.code

        assertEquals(ErrorCode.DISK_FULL, refusal("full"))
        assertEquals(ErrorCode.UNAVAILABLE, refusal("folder/inner"))
    }
}
