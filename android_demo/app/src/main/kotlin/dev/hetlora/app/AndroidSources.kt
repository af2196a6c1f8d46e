package dev.hetlora.app

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.content.pm.ApplicationInfo
import android.net.ConnectivityManager
import android.net.NetworkCapabilities
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import dev.hetlora.probe.Battery
import dev.hetlora.probe.LinuxSources
import dev.hetlora.probe.Memory
import dev.hetlora.probe.NetworkKind
import dev.hetlora.probe.Processor
import dev.hetlora.probe.Sources
import dev.hetlora.probe.architectureOf
import dev.hetlora.probe.freeHeapBytes
import dev.hetlora.units.MIB

/** What Android tells an app of its device; null is unknown. */
class AndroidSources(private val context: Context) : Sources {
    private val kernel = LinuxSources()
    private val power = context.getSystemService(PowerManager::class.java)
    private val connections = context.getSystemService(ConnectivityManager::class.java)

    val isMetered: Boolean get() = connections.isActiveNetworkMetered

    /** Whether nobody looks at the device. */
    val isIdle: Boolean get() = !power.isInteractive

    override fun processor(): Processor {
        val architecture = architectureOf(System.getProperty("os.arch").orEmpty())
        return Processor(architecture, Runtime.getRuntime().availableProcessors(), quotaCores = null)
    }

    override fun memory(): Memory {
        val told = ActivityManager.MemoryInfo()
        context.getSystemService(ActivityManager::class.java).getMemoryInfo(told)
        // Below the threshold the system ends apps.
        return Memory(told.totalMem, maxOf(0, told.availMem - told.threshold))
    }

    /** Of the heap that Android gives an app of this manifest, whatever memory the device has. */
    override fun heapBytes(): Long {
        val told = context.getSystemService(ActivityManager::class.java)
        val isLarge = context.applicationInfo.flags and ApplicationInfo.FLAG_LARGE_HEAP != 0
        return freeHeapBytes((if (isLarge) told.largeMemoryClass else told.memoryClass) * MIB)
    }

    override fun battery(): Battery? {
        val told = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED)) ?: return null
        val level = told.getIntExtra(BatteryManager.EXTRA_LEVEL, -1)
        val scale = told.getIntExtra(BatteryManager.EXTRA_SCALE, -1)
        val plugged = told.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0
        val status = told.getIntExtra(BatteryManager.EXTRA_STATUS, -1)
        val charging = status == BatteryManager.BATTERY_STATUS_CHARGING || status == BatteryManager.BATTERY_STATUS_FULL
        return Battery(if (level < 0 || scale <= 0) null else 100.0 * level / scale, charging, plugged)
    }

    /** The battery's temperature is no processor's. */
    override fun temperatureCelsius(): Double? = null

    override fun isThrottled(): Boolean? =
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) {
            null
        } else {
            power.currentThermalStatus >= PowerManager.THERMAL_STATUS_MODERATE
        }

    override fun network(): NetworkKind? {
        val told = connections.getNetworkCapabilities(connections.activeNetwork ?: return null) ?: return null
        return when {
            told.hasTransport(NetworkCapabilities.TRANSPORT_ETHERNET) -> NetworkKind.ETHERNET
            told.hasTransport(NetworkCapabilities.TRANSPORT_WIFI) -> NetworkKind.WIFI
            told.hasTransport(NetworkCapabilities.TRANSPORT_CELLULAR) -> NetworkKind.CELLULAR
            else -> NetworkKind.OTHER
        }
    }

    override fun lastLevelCacheBytes(): Long? = kernel.lastLevelCacheBytes()
}
