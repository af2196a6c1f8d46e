package dev.hetlora.app

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context
import dev.hetlora.session.nextVisitSeconds
import dev.hetlora.transport.StopSignal
import java.util.concurrent.ConcurrentHashMap
import kotlin.concurrent.thread

private const val JOB_ID = 1

/** A visit when Android finds that its conditions hold; put off to when the service asked for the next one. */
class VisitJob : JobService() {
    private val underWay = ConcurrentHashMap<JobParameters, StopSignal>()

    override fun onStartJob(parameters: JobParameters): Boolean {
        val stop = StopSignal()
        underWay[parameters] = stop
        thread(name = "visit") {
            val visit = DeviceWork.of(this).visit(stop)
            // Whom Android stopped it calls again itself; whom the user stopped has to say that he is done.
            if (underWay.remove(parameters) != null) {
                jobFinished(parameters, false)
                plan(this, nextVisitSeconds(visit?.retryAfterSeconds)) // anew while it runs would stop it
            }
        }
        return true
    }

    /** The step under way ends, and its checkpoint stays. */
    override fun onStopJob(parameters: JobParameters): Boolean {
        underWay.keys.filter { it.jobId == parameters.jobId }.forEach { underWay.remove(it)?.set() }
        return true
    }

    companion object {
        /** Have the next visit in so many seconds at the earliest, or none where the user takes no part. */
        fun plan(context: Context, seconds: Double = 0.0) {
            val scheduler = context.getSystemService(JobScheduler::class.java)
            val preferences = DeviceWork.of(context).preferences
            if (!preferences.takesPart) return scheduler.cancel(JOB_ID)
            val network =
                if (preferences.whileUnmetered) JobInfo.NETWORK_TYPE_UNMETERED else JobInfo.NETWORK_TYPE_ANY
            scheduler.schedule(
                JobInfo.Builder(JOB_ID, ComponentName(context, VisitJob::class.java))
                    .setRequiredNetworkType(network)
                    .setRequiresCharging(preferences.whileCharging)
                    .setRequiresDeviceIdle(preferences.whileIdle)
                    .setMinimumLatency((1000 * seconds).toLong())
                    .setPersisted(true)
                    .build(),
            )
        }
    }
}
