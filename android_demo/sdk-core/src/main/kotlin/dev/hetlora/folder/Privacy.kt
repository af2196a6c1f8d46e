package dev.hetlora.folder

import java.io.File
import java.nio.file.FileAlreadyExistsException
import java.nio.file.FileSystems
import java.nio.file.Files
import java.nio.file.attribute.FileAttribute
import java.nio.file.attribute.PosixFilePermissions

private val arePosix = "posix" in FileSystems.getDefault().supportedFileAttributeViews()

private fun only(permissions: String): Array<FileAttribute<*>> =
    if (arePosix) arrayOf(PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString(permissions))) else arrayOf()

/** Make a folder, and those above it, for this user alone; one that is there stays as it is. */
internal fun makeFolder(folder: File) {
    if (!folder.isDirectory) Files.createDirectories(folder.toPath(), *only("rwx------"))
}

/** Make an empty file for this user alone, before anything is in it; one that is there stays as it is. */
internal fun makeFile(file: File) {
    try {
        if (!file.exists()) Files.createFile(file.toPath(), *only("rw-------"))
    } catch (there: FileAlreadyExistsException) {
        return // another thread made it
    }
}
