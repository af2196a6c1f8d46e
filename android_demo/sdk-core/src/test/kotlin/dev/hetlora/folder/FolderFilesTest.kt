package dev.hetlora.folder

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.sha256Of
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assume.assumeTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.file.FileSystems
import java.nio.file.Files
import java.nio.file.attribute.PosixFilePermissions

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
        val one = assertThrows(HetloraException::class.java) { files.write("full").use { it.write(1) } }
        assertEquals(ErrorCode.DISK_FULL, one.code)
        assertEquals(ErrorCode.UNAVAILABLE, refusal("folder/inner"))
    }

    @Test
    fun `a file that is gone is not made by having it on the disk`() {
        val root = temporary.newFolder()
        val error = assertThrows(HetloraException::class.java) { FolderFiles(root).flush("gone") }
        assertEquals(ErrorCode.UNAVAILABLE, error.code)
        assertEquals(emptyList<String>(), root.list().orEmpty().toList())
    }

    @Test
    fun `what is made is closed to other users of the machine`() {
        assumeTrue("posix" in FileSystems.getDefault().supportedFileAttributeViews())
        val root = File(temporary.newFolder(), "above/device")
        val files = FolderFiles(root)
        files.replace("parts/a", byteArrayOf(1))
        files.write("b", append = true).use { it.write(1) }
        files.lock().close()

        fun permissions(path: String) =
            PosixFilePermissions.toString(Files.getPosixFilePermissions(File(root, path).toPath()))

        assertEquals(List(3) { "rwx------" }, listOf("..", ".", "parts").map(::permissions))
        assertEquals(List(3) { "rw-------" }, listOf("parts/a", "b", "lock").map(::permissions))
    }

    @Test
    fun `a file that cannot be read has no digest, and says so by its code`() {
        val folder = temporary.newFolder()
        for (file in listOf(folder, File(folder, "missing"))) {
            val error = assertThrows(HetloraException::class.java) { sha256Of(file) }
            assertEquals(ErrorCode.UNAVAILABLE, error.code)
        }
    }
}
