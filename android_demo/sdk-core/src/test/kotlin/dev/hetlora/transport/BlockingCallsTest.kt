package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.Identity
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.IOException
import java.io.OutputStream
import java.net.SocketTimeoutException
import java.net.URL
import java.util.concurrent.CompletableFuture
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.CountDownLatch
import java.util.concurrent.FutureTask
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread

/** Whatever a service does or does not, nobody waits for it longer than they want to. */
class BlockingCallsTest {
    private fun transport(server: RawServer) = Transport(server.url, Identity(ByteArray(32) { 7 }), testConnections())

    private fun get(server: RawServer) = HttpRequest("GET", URL(server.url), emptyMap(), null)

    /** How a request ends that is asked for, and then `interrupted` of its wait; a read of its own ends after 60 s. */
    private fun codeAfter(answer: (OutputStream) -> Unit, interrupted: (Transport, Thread) -> Unit): ErrorCode =
        RawServer(answer).use { server ->
            val transport = transport(server)
            val exchange = FutureTask {
                assertThrows(HetloraException::class.java) { transport.exchange("GET", "/device/v1/x") }.code
            }
            val visit = thread(isDaemon = true) { exchange.run() }
            server.awaitRequest()
            interrupted(transport, visit)
            exchange.get(10, TimeUnit.SECONDS)
        }

    @Test
    fun `the app's stop ends the wait for a head that drips, for one that never comes, and for a body`() {
        for (answer in listOf<(OutputStream) -> Unit>(::dripHead, {}, ::beginBody)) {
            assertEquals(ErrorCode.STOPPED, codeAfter(answer) { transport, _ -> transport.stop.set() })
        }
    }

    @Test
    fun `so does an interrupt`() {
        assertEquals(ErrorCode.STOPPED, codeAfter(::beginBody) { _, visit -> visit.interrupt() })
    }

    @Test
    fun `what is asked after the stop is given two seconds`() {
        RawServer {}.use { server ->
            val transport = transport(server).also { it.stop.set() }

            val error = assertThrows(HetloraException::class.java) { transport.exchange("GET", "/device/v1/x") }

            assertEquals(ErrorCode.STOPPED, error.code)
        }
        Loopback { Reply(200, "fine".toByteArray()) }.use { loopback ->
            val transport = Transport(loopback.url, Identity(ByteArray(32) { 7 }), testConnections())
            transport.stop.set()
            assertEquals("fine", String(transport.exchange("GET", "/device/v1/x")))
        }
    }

    @Test
    fun `a head that drips is given up, and its connection ended`() {
        val ended = CountDownLatch(1)
        val server = RawServer { out ->
            try {
                dripHead(out)
            } catch (error: IOException) {
                ended.countDown()
            }
        }
        server.use {
            assertThrows(SocketTimeoutException::class.java) { testConnections(readSeconds = 1).open(get(it)) }

            assertTrue(ended.await(10, TimeUnit.SECONDS))
        }
    }

    @Test
    fun `heads without end are a fault of the line`() {
        val server = RawServer { out ->
            out.write("HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000).toByteArray())
            out.flush()
        }
        server.use {
            val error = assertThrows(IOException::class.java) { testConnections(readSeconds = 5).open(get(it)) }

            assertTrue("$error", error.cause is StackOverflowError)
        }
    }

    @Test
    fun `a connection that throws at its end ends no process`() {
        val uncaught = CopyOnWriteArrayList<Throwable>()
        val before = Thread.getDefaultUncaughtExceptionHandler()
        Thread.setDefaultUncaughtExceptionHandler { _, thrown -> uncaught += thrown } // Android's ends the process
        try {
            val ending = CompletableFuture<Thread>()
            val calls = BlockingCalls(StopSignal()) {
                ending.complete(Thread.currentThread())
                error("the call under way took it apart")
            }
            assertThrows(SocketTimeoutException::class.java) { calls.within(0.01) { Thread.sleep(60_000) } }

            val thread = ending.get(10, TimeUnit.SECONDS)
            while (thread.state == Thread.State.RUNNABLE) Thread.sleep(5) // then it waits for work, or has died

            assertEquals(emptyList<Throwable>(), uncaught)
        } finally {
            Thread.setDefaultUncaughtExceptionHandler(before)
        }
    }

    @Test
    fun `actions that were taken back are not told of a stop, and late ones at once`() {
        val stop = StopSignal()
        val told = mutableListOf<String>()
        stop.onSet { told += "gone" }.close()
        stop.onSet { told += "first" }

        stop.set()
        stop.onSet { told += "late" }

        assertEquals(listOf("first", "late"), told)
    }
}
