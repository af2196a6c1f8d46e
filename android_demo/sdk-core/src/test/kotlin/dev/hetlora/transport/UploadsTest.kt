package dev.hetlora.transport

import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.Identity
import dev.hetlora.messages.EnrolRequest
import dev.hetlora.session.offerOf
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Before
import org.junit.Test

class UploadsTest {
    private val service = FakeService()
    private val identity = Identity(ByteArray(32) { 9 })
    private val transport = Transport(service.url, identity, testConnections(), random = Shortest)
    private val uploads = Uploads(transport, partBytes = 1000)
    private val update = ByteArray(2500) { (it * 3).toByte() }

    @Before
    fun enrol() {
        DeviceService(transport).enrol(EnrolRequest("fleet", "token", identity.publicKey))
        service.offer = offerOf("a-1")
        service.requests.clear()
    }

    @After
    fun close() = service.close()

    @Test
    fun `a small update goes whole, a larger one in parts`() {
        uploads.deliver("a-1", update.copyOf(1000))
        assertEquals(listOf("PUT /assignments/a-1/update"), service.requests)

        uploads.deliver("a-1", update)

        assertEquals(listOf(1000, 1000, 500), service.partSizes)
        assertArrayEquals(update, service.updates.last())
    }

    @Test
    fun `after a kill the parts that are there are not sent again`() {
        class Ended : Error()
        var asked = 0
        assertThrows(Ended::class.java) { uploads.deliver("a-1", update) { if (++asked == 3) throw Ended() } }
        uploads.deliver("a-1", update)

        assertEquals(2500, service.partSizes.sum())
        assertArrayEquals(update, service.updates.single())
    }

    @Test
    fun `an upload that the service lost is begun anew, and one that it never takes is given up`() {
        var asked = 0
        uploads.deliver("a-1", update) { if (++asked == 3) service.dropUploads() }
        assertArrayEquals(update, service.updates.single())
        assertEquals(listOf(1000, 1000, 1000, 1000, 500), service.partSizes)
        repeat(3) {
            service.script += null
            service.script += Refusal(409, "offset_mismatch").reply()
        }

        val other = update.reversedArray()
        val error = assertThrows(HetloraException::class.java) { uploads.deliver("a-1", other) }

        assertEquals(ErrorCode.OFFSET_MISMATCH, error.code)
    }

    @Test
    fun `a part that was damaged on its way is sent again`() {
        service.script += null
        service.script += Refusal(460, "checksum_mismatch").reply()

        uploads.deliver("a-1", update)

        assertArrayEquals(update, service.updates.single())
    }

    @Test
    fun `an answer that does not say where the upload stands is none of a service`() {
        service.script += Reply(201, headers = mapOf("Location" to "/elsewhere", "Upload-Offset" to "0"))

        val error = assertThrows(HetloraException::class.java) { uploads.deliver("a-1", update) }

        assertEquals(ErrorCode.SERVICE_UNREACHABLE, error.code)
    }
}
