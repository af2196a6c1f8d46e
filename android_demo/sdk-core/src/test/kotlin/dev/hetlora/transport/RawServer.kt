package dev.hetlora.transport

import java.io.Closeable
import java.io.IOException
import java.io.OutputStream
import java.net.InetAddress
import java.net.ServerSocket
import java.net.Socket
import java.util.concurrent.CopyOnWriteArrayList
import java.util.concurrent.CountDownLatch
import kotlin.concurrent.thread

/** Takes connections, and answers the first request of each with whatever `answer` writes. */
class RawServer(private val answer: (OutputStream) -> Unit) : Closeable {
    private val server = ServerSocket(0, 50, InetAddress.getLoopbackAddress())
    private val sockets = CopyOnWriteArrayList<Socket>()
    private val asked = CountDownLatch(1)

    val url: String get() = "http://127.0.0.1:${server.localPort}"

    init {
        daemon { while (true) server.accept().also { sockets += it }.let { daemon { serve(it) } } }
    }

    /** Wait until the first request is there. */
    fun awaitRequest() = asked.await()

    override fun close() {
        server.close()
        sockets.forEach { it.close() }
    }

    private fun serve(socket: Socket) {
        socket.getInputStream().read(ByteArray(64 * 1024))
        asked.countDown()
        answer(socket.getOutputStream())
    }

    /** Until the socket is closed, by this side or the other. */
    private fun daemon(action: () -> Unit) = thread(isDaemon = true) {
        try {
            action()
        } catch (error: IOException) {
            return@thread
        }
    }
}

/** The head of an answer that never ends. */
fun dripHead(out: OutputStream) {
    out.write("HTTP/1.1 200 OK\r\n".toByteArray())
    while (true) {
        out.write("X-Drip: a\r\n".toByteArray())
        out.flush()
        Thread.sleep(300)
    }
}

/** Two bytes of a hundred. */
fun beginBody(out: OutputStream) {
    out.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab".toByteArray())
    out.flush()
}
