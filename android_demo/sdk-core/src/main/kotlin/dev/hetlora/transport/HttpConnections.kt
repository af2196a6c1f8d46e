package dev.hetlora.transport

import java.io.ByteArrayInputStream
import java.io.Closeable
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.ProtocolException
import java.net.URL

/**
 * A request as it leaves, with its signature among the headers; `body` is null where the method has none.
 *
 * Once `stop` is set, whoever waits for the answer or for its body is to get `stopped`, see [StopSignal.check].
 */
class HttpRequest(
    val method: String,
    val url: URL,
    val headers: Map<String, String>,
    val body: ByteArray?,
    val stop: StopSignal = StopSignal(),
)

/** An answer whose head has come; to be closed. */
interface HttpAnswer : Closeable {
    val status: Int
    val body: InputStream

    /** A header by its name, in whatever case; null where there is none. */
    fun header(name: String): String?
}

/** The way to the service: the seam for tests, and for apps with a connection layer of their own. */
fun interface HttpConnections {
    /**
     * Send a request, and return when the head of its answer is there.
     *
     * @throws IOException no answer came, or none of HTTP.
     */
    @Throws(IOException::class)
    fun open(request: HttpRequest): HttpAnswer
}

// A body that leaves more slowly is given up. Half of what the service asks for: it is to say so first.
private const val LEAST_BYTES_PER_SECOND = 512

/**
 * The connections of `java.net.HttpURLConnection`, which Android and desktop Java both have.
 *
 * Bodies are handed over whole: in its streaming modes desktop Java swallows the body of a 401, which says what is
 * wrong. Redirects are not followed: a service has none, and a captive portal has.
 *
 * @param readSeconds in which a head has to be there from its first byte to its last, or something of a body.
 * @param setMethod sets the method: `setRequestMethod` of desktop Java refuses PATCH, that of Android takes it.
 */
class UrlConnections(
    private val connectSeconds: Int = 10,
    // The last update of a round may have the service aggregate before it answers.
    private val readSeconds: Int = 60,
    private val setMethod: (HttpURLConnection, String) -> Unit = HttpURLConnection::setRequestMethod,
) : HttpConnections {
    override fun open(request: HttpRequest): HttpAnswer {
        val connection = connectionFor(request)
        val calls = BlockingCalls(request.stop, connection::disconnect)
        // Each by itself: one that is called off can be ended only once it is connected.
        calls.within((connectSeconds + readSeconds).toDouble()) { connection.connect() }
        val sendSeconds = (request.body?.size ?: 0).toDouble() / LEAST_BYTES_PER_SECOND
        return calls.within(readSeconds + sendSeconds) {
            if (request.body != null) connection.outputStream.use { it.write(request.body) }
            UrlAnswer(connection, calls, readSeconds)
        }
    }

    private fun connectionFor(request: HttpRequest): HttpURLConnection {
        val connection = request.url.openConnection() as? HttpURLConnection
            ?: throw ProtocolException("no HTTP at ${request.url.protocol}")
        connection.connectTimeout = connectSeconds * 1000
        connection.readTimeout = readSeconds * 1000
        connection.instanceFollowRedirects = false
        connection.useCaches = false
        setMethod(connection, request.method)
        for ((name, value) in request.headers) connection.setRequestProperty(name, value)
        connection.doOutput = request.body != null
        return connection
    }
}

private class UrlAnswer(
    private val connection: HttpURLConnection,
    private val calls: BlockingCalls,
    readSeconds: Int,
) : HttpAnswer {
    override val status: Int = connection.responseCode

    init {
        if (status < 100) throw ProtocolException("the answer is none of HTTP")
    }

    override val body: InputStream = UrlBody(
        (if (status >= 400) connection.errorStream else connection.inputStream) ?: ByteArrayInputStream(ByteArray(0)),
        calls,
        readSeconds,
    )

    override fun header(name: String): String? = connection.getHeaderField(name)

    override fun close() = body.close()
}

private class UrlBody(
    private val body: InputStream,
    private val calls: BlockingCalls,
    private val readSeconds: Int,
) : InputStream() {
    override fun read(): Int {
        val one = ByteArray(1)
        return if (read(one, 0, 1) < 0) -1 else one[0].toInt() and 0xff
    }

    override fun read(piece: ByteArray, offset: Int, count: Int): Int =
        calls.within(readSeconds.toDouble()) { body.read(piece, offset, count) }

    /** Desktop Java would wait here for a read that was called off. */
    override fun close() {
        if (!calls.isOver) body.close()
    }
}
