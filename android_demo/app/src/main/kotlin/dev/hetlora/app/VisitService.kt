package dev.hetlora.app

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.Build
import android.os.Handler
import android.os.IBinder
import android.os.Looper
import android.os.PowerManager
import android.os.SystemClock
import dev.hetlora.journal.Thinned
import dev.hetlora.transport.StopSignal
import kotlin.concurrent.thread

private const val NOTIFICATION_ID = 1
private const val CHANNEL = "training"

/** What Android 15 gives such services in a day. */
private const val LONGEST_MILLIS = 6 * 3_600_000L
private const val SHOWN_EACH_SECONDS = 0.5
private const val STOP = "dev.hetlora.app.STOP"

/** A visit that the user asked for: it goes on while the app is not looked at, with a notification that can stop it. */
class VisitService : Service() {
    private val main = Handler(Looper.getMainLooper())
    private var stop: StopSignal? = null // of the visit under way
    private var newestStart = 0

    // To be in the foreground keeps the process, and lets the processor sleep.
    private val awake by lazy {
        getSystemService(PowerManager::class.java).newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "hetlora:visit")
    }

    // Of notifications that follow each other faster Android drops some, the last among them.
    private val show = Thinned<Status>(
        SHOWN_EACH_SECONDS,
        timer = { SystemClock.elapsedRealtime() / 1000.0 },
        later = { seconds, action -> main.postDelayed(action, (1000 * seconds).toLong()) },
    ) { getSystemService(NotificationManager::class.java).notify(NOTIFICATION_ID, notification(it)) }

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        newestStart = startId
        if (intent?.action == STOP) {
            stop?.set()
            if (stop == null) stopSelf(startId)
        } else if (!begin()) {
            if (stop == null) stopSelf(startId)
        } else if (stop == null) {
            visit()
        }
        return START_NOT_STICKY
    }

    private fun visit() {
        val own = StopSignal().also { stop = it }
        awake.acquire(LONGEST_MILLIS)
        val work = DeviceWork.of(this)
        work.addListener(show)
        thread(name = "visit") {
            work.visit(own, isAskedFor = true)
            main.post(::ended)
        }
    }

    /** Where a visit was asked for since, which is to come, Android goes on with the service. */
    private fun ended() {
        stop = null
        rest()
        stopSelf(newestStart)
    }

    private fun rest() {
        if (awake.isHeld) awake.release()
        DeviceWork.of(this).removeListener(show)
    }

    /** Android 15 gives such services six hours in a day. */
    override fun onTimeout(startId: Int, fgsType: Int) = stopSelf()

    override fun onDestroy() {
        stop?.set()
        rest()
        show.close()
        stopForeground(STOP_FOREGROUND_REMOVE)
    }

    /** Go to the foreground; false where Android does not allow it, as its hours of the day are spent. */
    private fun begin(): Boolean = try {
        toForeground()
        true
    } catch (error: IllegalStateException) {
        DeviceWork.of(this).refused(getString(R.string.service_time_spent))
        false
    }

    private fun toForeground() {
        val channel = NotificationChannel(CHANNEL, getString(R.string.channel_name), NotificationManager.IMPORTANCE_LOW)
        getSystemService(NotificationManager::class.java).createNotificationChannel(channel)
        val shown = notification(DeviceWork.of(this).status)
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) {
            startForeground(NOTIFICATION_ID, shown)
        } else {
            startForeground(NOTIFICATION_ID, shown, ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC)
        }
    }

    private fun notification(status: Status): Notification {
        val stopping = Intent(this, VisitService::class.java).setAction(STOP)
        val tapped = PendingIntent.getService(this, 0, stopping, PendingIntent.FLAG_IMMUTABLE)
        val round = status.page.round
        val shown = Intent(this, MainActivity::class.java)
        return Notification.Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.icon)
            .setContentTitle(status.words)
            .setContentIntent(PendingIntent.getActivity(this, 0, shown, PendingIntent.FLAG_IMMUTABLE))
            .setProgress(round.steps, round.step, round.steps == 0)
            .setOnlyAlertOnce(true)
            .setOngoing(true)
            .addAction(Notification.Action.Builder(null, getString(R.string.stop), tapped).build())
            .build()
    }

    companion object {
        fun start(context: Context) {
            context.startForegroundService(Intent(context, VisitService::class.java))
        }
    }
}
