package dev.hetlora.transport

import java.io.ByteArrayInputStream
import java.io.Closeable
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.ProtocolException
import java.net.URL

/** A request as it leaves, with its signature among the headers; `body` is null where the method has none. */
class HttpRequest(val method: String, val url: URL, val headers: Map<String, String>, val body: ByteArray?)

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

/**
 * The connections of `java.net.HttpURLConnection`, which Android and desktop Java both have.
 *
 * Bodies are handed over whole: in its streaming modes desktop Java swallows the body of a 401, which says what is
 * wrong. Redirects are not followed: a service has none, and a captive portal has.
 *
 * @param setMethod sets the method: `setRequestMethod` of desktop Java refuses PATCH, that of Android takes it.
 */
class UrlConnections(
    private val connectSeconds: Int = 10,
    // The last update of a round may have the service aggregate before it answers.
    private val readSeconds: Int = 60,
    private val setMethod: (HttpURLConnection, String) -> Unit = HttpURLConnection::setRequestMethod,
) : HttpConnections {
    override fun open(request: HttpRequest): HttpAnswer {
        val connection = request.url.openConnection() as? HttpURLConnection
            ?: throw ProtocolException("no HTTP at ${request.url.protocol}")
        connection.connectTimeout = connectSeconds * 1000
        connection.readTimeout = readSeconds * 1000
        connection.instanceFollowRedirects = false
        connection.useCaches = false
        setMethod(connection, request.method)
        for ((name, value) in request.headers) connection.setRequestProperty(name, value)
        if (request.body != null) {
            connection.doOutput = true
            connection.outputStream.use { it.write(request.body) }
        }
        return UrlAnswer(connection)
    }
}

private class UrlAnswer(private val connection: HttpURLConnection) : HttpAnswer {
    override val status: Int = connection.responseCode

    init {
        if (status < 100) throw ProtocolException("the answer is none of HTTP")
    }

    override val body: InputStream =
        (if (status >= 400) connection.errorStream else connection.inputStream) ?: ByteArrayInputStream(ByteArray(0))

    override fun header(name: String): String? = connection.getHeaderField(name)

    override fun close() = body.close()
}
