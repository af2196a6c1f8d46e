package dev.hetlora.app

import android.content.Context
import android.content.SharedPreferences
import dev.hetlora.messages.Conditions

/** What the user has chosen; it outlives the app's process. */
class Preferences(context: Context) {
    private val stored: SharedPreferences = context.getSharedPreferences("preferences", Context.MODE_PRIVATE)

    var serviceUrl: String by Text("service_url")
    var population: String by Text("population")
    /** Kept until the device is admitted. */
    var enrolmentToken: String by Text("enrolment_token")
    var takesPart: Boolean by Choice("takes_part", false)
    var whileCharging: Boolean by Choice("while_charging", true)
    var whileUnmetered: Boolean by Choice("while_unmetered", true)
    var whileIdle: Boolean by Choice("while_idle", false)

    /** Who asks for a visit uses the device. */
    fun conditions(isAskedFor: Boolean) = Conditions(whileCharging, whileUnmetered, whileIdle && !isAskedFor)

    private inner class Text(private val name: String) {
        operator fun getValue(owner: Any, property: Any): String = stored.getString(name, null).orEmpty()

        operator fun setValue(owner: Any, property: Any, value: String) =
            stored.edit().putString(name, value.trim()).apply()
    }

    private inner class Choice(private val name: String, private val otherwise: Boolean) {
        operator fun getValue(owner: Any, property: Any): Boolean = stored.getBoolean(name, otherwise)

        operator fun setValue(owner: Any, property: Any, value: Boolean) =
            stored.edit().putBoolean(name, value).apply()
    }
}
