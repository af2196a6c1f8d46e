package dev.hetlora.transport

import com.sun.net.httpserver.HttpExchange
import com.sun.net.httpserver.HttpServer
import java.io.Closeable
import java.net.HttpURLConnection
import java.net.InetSocketAddress
import java.util.concurrent.Executors

/** A request as it came; header names in lower case. */
class Request(
    val method: String,
    val path: String,
    val query: String,
    val headers: Map<String, String>,
    val body: ByteArray,
)

/** An answer; of its body only `sentBytes` are sent before the line is cut, null being all of it. */
class Reply(
    val status: Int,
    val body: ByteArray = ByteArray(0),
    val headers: Map<String, String> = emptyMap(),
    val sentBytes: Int? = null,
) {
    companion object {
        /** No answer: the line is cut. */
        val CUT = Reply(0)
    }
}

/** HTTP on a free port of this machine; requests are answered one at a time. */
class Loopback(private val answer: (Request) -> Reply) : Closeable {
    init {
        // Else the system waits for 40 ms with the body of an answer, as its head was sent before.
        System.setProperty("sun.net.httpserver.nodelay", "true")
    }

    private val executor = Executors.newCachedThreadPool()
    private val server = HttpServer.create(InetSocketAddress("127.0.0.1", 0), 0)

    val url: String get() = "http://127.0.0.1:${server.address.port}"

    init {
        server.executor = executor
        server.createContext("/", ::handle)
        server.start()
    }

    override fun close() {
        server.stop(0)
        executor.shutdownNow()
    }

    private fun handle(exchange: HttpExchange) {
        val headers = exchange.requestHeaders.map { (name, values) -> name.lowercase() to values.first() }.toMap()
        val address = exchange.requestURI
        val body = exchange.requestBody.readBytes()
        val request = Request(exchange.requestMethod, address.rawPath, address.rawQuery ?: "", headers, body)
        val reply = synchronized(this) { answer(request) }
        if (reply.status != 0) send(exchange, reply)
        exchange.close()
    }

    private fun send(exchange: HttpExchange, reply: Reply) {
        reply.headers.forEach(exchange.responseHeaders::set)
        exchange.sendResponseHeaders(reply.status, if (reply.body.isEmpty()) -1 else reply.body.size.toLong())
        if (reply.body.isNotEmpty()) exchange.responseBody.write(reply.body, 0, reply.sentBytes ?: reply.body.size)
        exchange.responseBody.flush()
    }
}

/** Desktop Java has no PATCH in its list of methods; opened by `--add-opens java.base/java.net=ALL-UNNAMED`. */
fun setAnyMethod(connection: HttpURLConnection, method: String) {
    val field = HttpURLConnection::class.java.getDeclaredField("method")
    field.isAccessible = true
    field.set(connection, method)
}

/** The connections that the client ships, with PATCH on desktop Java too. */
fun testConnections(readSeconds: Int = 60): HttpConnections =
    UrlConnections(readSeconds = readSeconds, setMethod = ::setAnyMethod)
