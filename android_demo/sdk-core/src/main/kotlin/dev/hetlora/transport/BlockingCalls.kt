package dev.hetlora.transport

import java.io.IOException
import java.io.InterruptedIOException
import java.net.SocketTimeoutException
import java.util.concurrent.CancellationException
import java.util.concurrent.ExecutionException
import java.util.concurrent.FutureTask
import java.util.concurrent.SynchronousQueue
import java.util.concurrent.ThreadFactory
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException

// A thread that has nothing to do ends after this.
private const val IDLE_SECONDS = 10L

private val threads =
    ThreadPoolExecutor(0, Int.MAX_VALUE, IDLE_SECONDS, TimeUnit.SECONDS, SynchronousQueue(), ThreadFactory(::daemon))

private fun daemon(work: Runnable) = Thread(work, "hetlora-connection").apply { isDaemon = true }

/**
 * The calls of one connection that may block, each on another thread: whoever waits for one can be called off.
 *
 * Desktop Java has a `disconnect` wait for a read that is under way, none ends a connect, and Android forbids it on
 * the thread that draws. So who waits goes at once, and the call ends when it can.
 *
 * @param stop ends the wait; set before the connection was there, it leaves each call [STOPPED_ANSWER_SECONDS].
 * @param end ends the connection, as far as that can be done while a call is under way.
 */
internal class BlockingCalls(private val stop: StopSignal, private val end: () -> Unit) {
    private val isLate = stop.isSet

    /** Whether somebody was called off; the connection is not to be used any more. */
    var isOver = false
        private set

    /**
     * What `call` comes to, within so many seconds in all.
     *
     * @throws IOException as of `call`, of which a stack that ends is a fault too: endless heads make desktop Java
     *     call itself. [SocketTimeoutException]: it took longer. [InterruptedIOException]: this thread was
     *     interrupted.
     * @throws dev.hetlora.errors.HetloraException `stopped`.
     */
    fun <Result> within(seconds: Double, call: () -> Result): Result {
        val result = FutureTask(call)
        threads.execute {
            result.run()
            // Nobody is there any more: a connection that came too late for the first `end` is ended now.
            if (result.isCancelled) ending().run()
        }
        val watched = if (isLate) null else stop.onSet { result.cancel(false) }
        try {
            return result.get((1000 * (if (isLate) STOPPED_ANSWER_SECONDS else seconds)).toLong(), TimeUnit.MILLISECONDS)
        } catch (error: ExecutionException) {
            throw told(error.cause!!)
        } catch (error: CancellationException) {
            throw calledOff(result, IOException("called off", error))
        } catch (error: TimeoutException) {
            throw calledOff(result, SocketTimeoutException("not within $seconds s"))
        } catch (error: InterruptedException) {
            throw calledOff(result, InterruptedIOException("interrupted"))
        } finally {
            watched?.close()
        }
    }

    private fun told(thrown: Throwable): Throwable =
        if (thrown is StackOverflowError) IOException("an answer that cannot be read", thrown) else thrown

    /** A task keeps what it throws, as a connection may that its call is still at; uncaught it ends an app's process. */
    private fun ending() = FutureTask(end)

    private fun calledOff(result: FutureTask<*>, fault: IOException): IOException {
        isOver = true
        result.cancel(false)
        threads.execute(ending())
        if (!isInterrupt(fault)) stop.check()
        return fault
    }
}
