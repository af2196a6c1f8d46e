package dev.hetlora.probe

import java.io.File

// Flags of a route (linux/route.h): it is up; it leads nowhere.
private const val UP = 0x1L
private const val REJECTED = 0x200L
private const val ETHERNET_TYPE = 1L // ARPHRD_ETHER, which Wi-Fi has, too
private val blanks = Regex("\\s+")
private val interfaceName = Regex("[\\w.:@-]{1,64}")

// Names by which drivers, systemd and Android call interfaces, tried in this order.
private val names = listOf(
    Regex("wwan|wwp|wwx|rmnet|ccmni|ppp|pdp_ip|cellular|mobile", RegexOption.IGNORE_CASE) to NetworkKind.CELLULAR,
    Regex("wl|ath\\d|ra\\d|wi-?fi", RegexOption.IGNORE_CASE) to NetworkKind.WIFI,
    Regex("tun|tap|wg|utun|ipsec|docker|veth", RegexOption.IGNORE_CASE) to NetworkKind.OTHER,
    Regex("eth|en[opsx]|end\\d|lan\\d", RegexOption.IGNORE_CASE) to NetworkKind.ETHERNET,
)

private class Route(val name: String, val flags: Long?, val metric: Long) {
    val leadsOut: Boolean
        get() = interfaceName.matches(name) && name !in setOf("lo", ".", "..") &&
            flags != null && flags and UP != 0L && flags and REJECTED == 0L
}

/** The kind of interface that the default route leads over; null without one, or where nobody tells. */
internal fun networkOf(files: KernelFiles): NetworkKind? {
    val interfaceName = defaultInterface(files) ?: return null
    return kindOf(File(files.sys, "class/net/$interfaceName"), interfaceName)
}

/** The interface of the default route with the lowest metric, of IPv4 where there is one, else of IPv6. */
private fun defaultInterface(files: KernelFiles): String? {
    val routes = routesOfVersion4(files).ifEmpty { routesOfVersion6(files) }
    return routes.minWithOrNull(compareBy({ it.metric }, { it.name }))?.name
}

private fun routesOfVersion4(files: KernelFiles): List<Route> =
    fieldsOf(File(files.proc, "net/route"), 8).drop(1)
        .filter { it[1] == "00000000" && it[7] == "00000000" }
        .map { Route(it[0], it[3].toLongOrNull(16), it[6].toLongOrNull() ?: 0) }
        .filter { it.leadsOut }

private fun routesOfVersion6(files: KernelFiles): List<Route> =
    fieldsOf(File(files.proc, "net/ipv6_route"), 10)
        .filter { it[0] == "0".repeat(32) && it[1] == "00" }
        .map { Route(it[9], it[8].toLongOrNull(16), it[5].toLongOrNull(16) ?: 0) }
        .filter { it.leadsOut }

/** The words of each line, and empty ones in the place of those that lack. */
private fun fieldsOf(file: File, count: Int): List<List<String>> =
    textOf(file).lines().map { line -> line.trim().split(blanks) + List(count) { "" } }

private fun kindOf(folder: File, name: String): NetworkKind? {
    val told = Regex("^DEVTYPE=(\\w+)$", RegexOption.MULTILINE).find(textOf(File(folder, "uevent")))
    val byName = names.firstOrNull { (pattern, _) -> pattern.find(name)?.range?.first == 0 }?.second
    return when {
        told?.groupValues?.get(1) == "wwan" -> NetworkKind.CELLULAR
        told?.groupValues?.get(1) == "wlan" -> NetworkKind.WIFI
        listOf("wireless", "phy80211").any { File(folder, it).exists() } -> NetworkKind.WIFI
        byName == null && numberOf(File(folder, "type")) == ETHERNET_TYPE ->
            if (File(folder, "device").exists()) NetworkKind.ETHERNET else NetworkKind.OTHER
        else -> byName ?: NetworkKind.OTHER.takeIf { folder.exists() }
    }
}
