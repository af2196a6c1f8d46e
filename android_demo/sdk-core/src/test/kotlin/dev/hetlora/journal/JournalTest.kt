package dev.hetlora.journal

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.folder.FolderFiles
import dev.hetlora.folder.Killed
import dev.hetlora.folder.KilledFiles
import dev.hetlora.messages.EvaluationReport
import dev.hetlora.session.Event
import dev.hetlora.session.fixedRank
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class JournalTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val files by lazy { FolderFiles(folder.root) }
    private val before = EvaluationReport(10, 2.0, 4)
    private val after = EvaluationReport(10, 1.0, 7)

    @Test
    fun `a round and its visits are there after the process`() {
        val journal = Journal(files)
        journal.note(Event.HeldOutScored(true, before))
        journal.note(Event.StepDone(1, 2, 0.75))
        journal.note(Event.StepDone(2, 2, 0.5))
        journal.note(Event.HeldOutScored(false, after))
        journal.noteVisit(VisitRecord(5, "accepted"))
        val expected = RoundRecord(
            step = 2, steps = 2, points = listOf(LossPoint(1, 0.75), LossPoint(2, 0.5)), before = before, after = after,
        )
        assertEquals(JournalPage(round = expected, visits = listOf(VisitRecord(5, "accepted"))), Journal(files).page)
    }

    @Test
    fun `steps are written every five seconds`() {
        var now = 0.0
        val journal = Journal(files) { now }
        journal.note(Event.StepDone(1, 9, 1.0))
        now = 4.0
        journal.note(Event.StepDone(2, 9, 1.0))
        assertEquals(1, Journal(files).page.round.step)
        now = 5.0
        journal.note(Event.StepDone(3, 9, 1.0))
        assertEquals(3, Journal(files).page.round.step)
    }

    @Test
    fun `the newest twenty visits are kept`() {
        val journal = Journal(files)
        (1L..25L).forEach { journal.noteVisit(VisitRecord(it, "no work")) }
        assertEquals((25L downTo 6L).toList(), Journal(files).page.visits.map { it.endedMillis })
    }

    @Test
    fun `a process that ends while writing leaves the page before or the new one`() {
        Journal(files).noteVisit(VisitRecord(1, "first"))
        for (last in 0..2) {
            val killed = Journal(KilledFiles(files, last))
            assertThrows(Killed::class.java) { killed.noteVisit(VisitRecord(2, "second")) }
            assertEquals(listOf("first"), Journal(files).page.visits.map { it.words })
        }
    }

    @Test
    fun `a damaged journal is an empty one, and the next page takes its place`() {
        val stored = File(folder.root, "journal/journal.json")
        stored.parentFile.mkdirs()
        val reportOfNone = """{"round":{"before":{"example_count":0,"loss":1.0}}}"""
        for (text in listOf("{\"vers", "{}x", "{\"version\":2}", "{\"visits\":3}", reportOfNone)) {
            stored.writeText(text)
            assertEquals(text, JournalPage(), Journal(files).page)
        }
        Journal(files).noteVisit(VisitRecord(3, "no work"))
        assertEquals(1, Journal(files).page.visits.size)
    }

    @Test
    fun `a curve of ten thousand steps has at most 500 points, evenly apart, from the first`() {
        val round = (1..10_000).fold(RoundRecord()) { now, step -> now.stepped(step, 10_000, step.toDouble()) }
        // 500 doubled five times: every 32nd step, 313 of them.
        assertEquals(32, round.stride)
        assertEquals((0 until 313).map { 1 + 32 * it }, round.points.map { it.step })
        assertTrue(round.points.all { it.loss == it.step.toDouble() })
    }

    @Test
    fun `a loss that is no number counts as a step without a point`() {
        val round = RoundRecord().stepped(1, 3, Double.NaN).stepped(2, 3, 0.5)
        assertEquals(RoundRecord(step = 2, steps = 3, points = listOf(LossPoint(2, 0.5))), round)
    }

    @Test
    fun `steps after the checkpoint go when a round is resumed`() {
        val journal = Journal(files)
        (1..4).forEach { journal.note(Event.StepDone(it, 9, 1.0 / it)) }
        journal.note(Event.Resumed(2))
        journal.note(Event.StepDone(3, 9, 0.25))
        val expected = listOf(LossPoint(1, 1.0), LossPoint(2, 0.5), LossPoint(3, 0.25))
        assertEquals(expected, journal.page.round.points)
    }

    @Test
    fun `a rank that is chosen begins another round, with its reasons`() {
        val journal = Journal(files)
        journal.note(Event.HeldOutScored(true, before))
        journal.note(Event.StepDone(1, 2, 0.75))
        journal.note(Event.RankChosen(fixedRank(4, 16, 2))) { "rank ${it.choice.rank}: the run allows no higher" }
        assertEquals(RoundRecord(4, "rank 4: the run allows no higher"), Journal(files).page.round)
    }

    @Test
    fun `steps that are taken again without a checkpoint take the place of the first ones`() {
        val journal = Journal(files)
        (1..3).forEach { journal.note(Event.StepDone(it, 3, 1.0)) }
        journal.note(Event.StepDone(1, 3, 0.5))
        val expected = RoundRecord(step = 1, steps = 3, points = listOf(LossPoint(1, 0.5)))
        assertEquals(expected, journal.page.round)
    }

    @Test
    fun `a full disk costs no visit, and the page is there to be shown`() {
        val full = KilledFiles(files, 0) { HetloraException(ErrorCode.DISK_FULL, "cannot write") }
        val journal = Journal(full)
        journal.noteVisit(VisitRecord(1, "accepted"))
        assertEquals(listOf("accepted"), journal.page.visits.map { it.words })
        assertEquals(JournalPage(), Journal(files).page)
    }
}
