package dev.hetlora.session

import dev.hetlora.folder.FolderFiles
import org.junit.After
import org.junit.Rule
import org.junit.rules.TemporaryFolder

/** Tests of whole rounds against a fake service, on folders that go with the test. */
abstract class WithRounds {
    @get:Rule
    val temporary = TemporaryFolder()
    protected val rounds = Rounds()
    protected val service = rounds.service

    @After
    fun close() = rounds.close()

    protected fun files() = FolderFiles(temporary.newFolder())
}
