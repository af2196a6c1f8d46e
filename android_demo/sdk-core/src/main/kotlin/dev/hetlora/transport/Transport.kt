package dev.hetlora.transport

import dev.hetlora.SDK_VERSION
import dev.hetlora.errors.ErrorCode
import dev.hetlora.errors.HetloraException
import dev.hetlora.identity.Identity
import dev.hetlora.identity.sha256Of
import dev.hetlora.identity.signedHeaders
import dev.hetlora.messages.errorOfAnswer
import java.io.IOException
import java.net.URI
import java.net.URISyntaxException
import java.net.URL
import kotlin.random.Random

const val USER_AGENT = "hetlora-android/$SDK_VERSION"
private const val MAX_PORT = 65_535

/**
 * Requests to one service, signed as one device: bytes in, bytes out, every fault a [HetloraException].
 *
 * Each try is signed anew, with its own time and nonce, as the service refuses a nonce that it has seen.
 *
 * @param serviceUrl where the service answers, http or https.
 * @param clock Unix seconds, for the signatures.
 * @param timer seconds, for how long an answer may take.
 * @throws HetloraException `settings_invalid`: the address is none of a service.
 */
class Transport(
    serviceUrl: String,
    identity: Identity,
    private val connections: HttpConnections = UrlConnections(),
    private val clock: () -> Double = { System.currentTimeMillis() / 1000.0 },
    private val random: Random = Random.Default,
    private val timer: () -> Double = { System.nanoTime() / 1e9 },
) {
    val serviceUrl: String = checkedAddress(serviceUrl)

    /** As whom requests are signed. */
    @Volatile
    var identity: Identity = identity

    /** Ends waits between two tries once it is set, and requests that are under way. */
    var stop = StopSignal()

    /**
     * Send a request until it is answered, and return the body of the answer.
     *
     * @throws HetloraException `service_unreachable`: no answer after all tries, or one that no hetlora service
     *     gives; else whatever the service's problem document tells of.
     */
    fun exchange(
        method: String,
        path: String,
        body: ByteArray? = null,
        headers: Map<String, String> = emptyMap(),
    ): ByteArray = retrying { open(method, path, body, headers).use { readAnswer(it, timer, stop) } }

    /**
     * Call `action` until it succeeds: again after faults of the line, 408, 429, 460 and 5xx, with full jitter.
     *
     * Again also after `replayed_request`: something on the way sent the request twice, and the answer to the
     * first is lost. An answer that says when to come back is waited for, unless that is longer than
     * [LONGEST_RETRY_AFTER_SECONDS].
     */
    fun <Result> retrying(action: () -> Result): Result = try {
        retrying(random, { stop.sleep(it) }, action)
    } catch (answer: ErrorAnswer) {
        throw errorOfAnswer(answer.status, answer.body, serviceUrl, answer.retryAfterSeconds)
    } catch (error: IOException) {
        if (isInterrupt(error)) throw stoppedBy(error)
        throw HetloraException(
            ErrorCode.SERVICE_UNREACHABLE,
            "the service does not answer",
            got = "${error.javaClass.simpleName}: ${error.message}",
            expected = "a hetlora service at $serviceUrl",
            cause = error,
        )
    } catch (error: SecurityException) { // Android's word for an app without the permission INTERNET
        throw HetloraException(
            ErrorCode.SETTINGS_INVALID,
            "this app may not use the network",
            got = error.javaClass.simpleName,
            expected = "the permission to",
            cause = error,
        )
    }

    /** One signed try, to be closed; for use within [retrying], which gives its errors their codes. */
    fun open(
        method: String,
        path: String,
        body: ByteArray? = null,
        headers: Map<String, String> = emptyMap(),
    ): HttpAnswer {
        val url = URL(serviceUrl + path)
        val answer = connections.open(HttpRequest(method, url, headers + signed(method, url, body), body, stop))
        if (answer.status in 200..299) return answer
        answer.use { throw ErrorAnswer(it.status, readAnswer(it, timer, stop), askedSeconds(it)) }
    }

    /** One signed try, as [open], for an answer that is all in its headers. */
    fun ask(method: String, path: String, body: ByteArray?, headers: Map<String, String>): HttpAnswer =
        open(method, path, body, headers).also { answer ->
            answer.use { readAnswer(it, timer, stop) } // or the connection could not be used again
        }

    private fun signed(method: String, url: URL, body: ByteArray?): Map<String, String> {
        // Digests and ranges are over the bytes as they travel; Android would ask for gzip by itself.
        val plain = mapOf("Accept-Encoding" to "identity", "User-Agent" to USER_AGENT)
        val bodySha256 = sha256Of(body ?: ByteArray(0))
        return plain + identity.signedHeaders(method, url.path, url.query ?: "", bodySha256, clock().toLong())
    }
}

/** The address of a service without a slash at its end; `settings_invalid` where it is none. */
private fun checkedAddress(serviceUrl: String): String {
    // What stands before an @ may be a password, and is not told.
    val shown = if ('@' in serviceUrl) null else serviceUrl
    val address = try {
        URI(serviceUrl)
    } catch (error: URISyntaxException) {
        throw HetloraException(ErrorCode.SETTINGS_INVALID, "service_url is no address", got = shown)
    }
    if (address.userInfo != null) {
        throw HetloraException(
            ErrorCode.SETTINGS_INVALID,
            "service_url with a user or password",
            expected = "none: devices sign",
        )
    }
    val isOfService = address.scheme in setOf("http", "https") && address.host != null && address.query == null
    if (!isOfService || address.port > MAX_PORT) {
        throw HetloraException(
            ErrorCode.SETTINGS_INVALID,
            "service_url is no address of a service",
            got = shown,
            expected = "http(s)://HOST[:PORT]",
        )
    }
    return serviceUrl.trimEnd('/')
}
