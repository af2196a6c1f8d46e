package dev.hetlora.app

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context
import dev.hetlora.transport.StopSignal
import kotlin.concurrent.thread

private const val JOB_ID = 1
private const val AGAIN_SECONDS = 900.0

/** A visit when Android finds that its conditions hold; put off to when the service asked for the next one. */
class VisitJob : JobService() {
    @Volatile
    private var stop = StopSignal()

    override fun onStartJob(parameters: JobParameters): Boolean {
        val own = StopSignal()
        stop = own
        thread(name = "visit") {
            val visit = DeviceWork.of(this).visit(own)
            // Whom Android stopped it calls again itself. A job that is put anew while it runs is stopped.
            if (!own.isSet) {
                jobFinished(parameters, false)
                plan(this, visit?.retryAfterSeconds ?: AGAIN_SECONDS)
            }
        }
        return true
    }

    /** The step under way ends, and its checkpoint stays. */
    override fun onStopJob(parameters: JobParameters): Boolean {
        stop.set()
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
