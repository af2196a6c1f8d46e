package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.Identity
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.random.Random

class TransportTest {
    private val replies = ArrayDeque<Reply>()
    private val nonces = mutableListOf<String>()
    private val loopback = Loopback { request ->
        nonces += Regex("nonce=\"([^\"]+)\"").find(request.headers.getValue("signature-input"))!!.groupValues[1]
        replies.removeFirst()
    }
    private val transport =
        Transport(loopback.url, Identity(ByteArray(32) { 7 }), testConnections(), random = Shortest)

    @After
    fun close() = loopback.close()

    private fun ask() = String(transport.exchange("POST", "/device/v1/check-ins", "{}".toByteArray()))

    private fun refusal(action: () -> Unit): HetloraException = assertThrows(HetloraException::class.java, action)

    @Test
    fun `passing faults are tried again, each time signed anew`() {
        replies += listOf(Refusal(503, "unavailable").reply(), Refusal(429, "too_many_requests", "0").reply())
        replies += listOf(Refusal(408, "body_too_slow").reply(), Refusal(401, "replayed_request").reply())
        replies += Reply(200, "fine".toByteArray())

        assertEquals("fine", ask())

        assertEquals(5, nonces.toSet().size)
    }

    @Test
    fun `a line that is cut before the answer is tried again`() {
        repeat(3) { replies += Reply.CUT }
        replies += Reply(200, "fine".toByteArray())

        assertEquals("fine", ask())

        // Java itself sends a request twice, under one nonce: this is why `replayed_request` is tried again.
        assertEquals(nonces[0], nonces[1])
        assertEquals(2, nonces.toSet().size)
    }

    @Test
    fun `an answer that is cut is asked for again`() {
        replies += Reply(200, "fine and long".toByteArray(), sentBytes = 4)
        replies += Reply(200, "fine and long".toByteArray())

        assertEquals("fine and long", ask())
    }

    @Test
    fun `eight failures in a row are the end, and the last is told`() {
        repeat(MAX_TRIES) { replies += Refusal(503, "unavailable").reply() }

        val error = refusal { ask() }

        // Every 5xx is a service that is ill, whatever code it names.
        assertEquals(ErrorCode.SERVICE_FAILED, error.code)
        assertEquals(MAX_TRIES, nonces.size)
    }

    @Test
    fun `a service that asks for more than a minute is left alone, and when to come back is told`() {
        replies += Refusal(503, "unavailable", "61").reply()

        assertEquals(61.0, refusal { ask() }.retryAfterSeconds!!, 0.0)
        assertEquals(1, nonces.size)
    }

    @Test
    fun `a date to come back at is reckoned from the answer's own date`() {
        val headers = mapOf("Retry-After" to "Sun, 06 Nov 1994 08:51:07 GMT")
        // The server of the JDK dates its answers itself: today, which is later.
        replies += Reply(503, Refusal(503, "unavailable").reply().body, headers)
        replies += Reply(200, "fine".toByteArray())

        assertEquals("fine", ask())

        val answer = object : HttpAnswer {
            override val status = 503
            override val body = ByteArray(0).inputStream()
            override fun header(name: String) =
                mapOf("Date" to "Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After" to headers.values.first())[name]
            override fun close() = Unit
        }
        assertEquals(90.0, askedSeconds(answer), 0.0)
    }

    @Test
    fun `refusals and wrong clocks are not tried again`() {
        val codes = listOf(401 to "clock_skew", 401 to "unknown_device", 403 to "not_permitted", 409 to "state_conflict")
        for ((status, code) in codes) {
            replies += Refusal(status, code).reply()
            assertEquals(code, refusal { ask() }.code.code)
        }
        assertEquals(codes.size, nonces.size)
    }

    @Test
    fun `a captive portal is no service, whether it redirects or answers a page`() {
        replies += Reply(302, "<html>".toByteArray(), mapOf("Location" to "http://login.invalid/"))
        assertEquals(ErrorCode.SERVICE_UNREACHABLE, refusal { ask() }.code)
        replies += Reply(200, "<html>".toByteArray())

        val error = refusal {
            DeviceService(transport).submit("a-1", report())
        }

        assertEquals(ErrorCode.SERVICE_UNREACHABLE, error.code)
    }

    @Test
    fun `an answer of more than a mebibyte, or a compressed one, is none of a service`() {
        replies += Reply(200, ByteArray(1024 * 1024 + 1))
        assertEquals(ErrorCode.SERVICE_UNREACHABLE, refusal { ask() }.code)
        replies += Reply(200, ByteArray(10), mapOf("Content-Encoding" to "gzip"))
        assertEquals(ErrorCode.SERVICE_UNREACHABLE, refusal { ask() }.code)
    }

    @Test
    fun `nobody at the address is told as a service that is unreachable`() {
        loopback.close()

        val error = refusal { ask() }

        assertEquals(ErrorCode.SERVICE_UNREACHABLE, error.code)
        assertTrue(error.message, "ConnectException" in error.message)
    }

    @Test
    fun `waits are ended by the app's stop`() {
        replies += Refusal(503, "unavailable", "59").reply()
        transport.stop = StopSignal().also { stop -> Thread { Thread.sleep(100); stop.set() }.start() }

        assertEquals(ErrorCode.STOPPED, refusal { ask() }.code)
    }

    @Test
    fun `an address with a password, or none of HTTP, is refused without telling the password`() {
        for (address in listOf("http://me:secret@host", "ftp://host", "nonsense", "http://", "http://host:65536")) {
            val error = refusal { Transport(address, Identity(ByteArray(32))) }
            assertEquals(ErrorCode.SETTINGS_INVALID, error.code)
            assertTrue("secret" !in error.message)
        }
    }

    @Test
    fun `waits double up to eight seconds, and never fall below what was asked for`() {
        val waits = (1..7).map { fullJitterSeconds(it, 2.0, Longest) }

        assertEquals(listOf(2.5, 3.0, 4.0, 6.0, 10.0, 10.0, 10.0), waits)
        assertEquals(2.0, fullJitterSeconds(2000, 2.0, Shortest), 0.0)
    }
}

/** Draws 0 each time, so that tests do not wait. */
object Shortest : Random() {
    override fun nextBits(bitCount: Int) = 0
    override fun nextDouble() = 0.0
}

private object Longest : Random() {
    override fun nextBits(bitCount: Int) = 0
    override fun nextDouble() = 1.0
}
