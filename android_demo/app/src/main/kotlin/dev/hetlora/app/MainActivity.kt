package dev.hetlora.app

import android.Manifest
import android.app.Activity
import android.os.Build
import android.os.Bundle
import android.widget.Button
import android.widget.CompoundButton
import android.widget.EditText
import android.widget.ProgressBar
import android.widget.TextView
import dev.hetlora.errors.HetloraException
import dev.hetlora.examples.Example
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors

private const val MIB = 1024L * 1024

/** All of the app: what goes on, whether and when to take part, and the examples. */
class MainActivity : Activity() {
    private lateinit var work: DeviceWork
    private lateinit var disk: ExecutorService
    private val show = { status: Status ->
        findViewById<TextView>(R.id.status).text = status.words
        findViewById<TextView>(R.id.plan).text = status.plan
        findViewById<LossCurve>(R.id.curve).losses = status.losses
        findViewById<Button>(R.id.visit).setText(if (status.isBusy) R.string.stop else R.string.visit_now)
        with(findViewById<ProgressBar>(R.id.progress)) {
            max = status.steps
            progress = status.step
        }
    }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.main)
        work = DeviceWork.of(this)
        disk = Executors.newSingleThreadExecutor()
        with(work.preferences) {
            findViewById<EditText>(R.id.service_url).setText(serviceUrl)
            findViewById<EditText>(R.id.population).setText(population)
            findViewById<EditText>(R.id.token).setText(enrolmentToken)
            choice(R.id.take_part, takesPart) { takesPart = it }
            choice(R.id.charging, whileCharging) { whileCharging = it }
            choice(R.id.unmetered, whileUnmetered) { whileUnmetered = it }
            choice(R.id.idle, whileIdle) { whileIdle = it }
        }
        findViewById<Button>(R.id.visit).setOnClickListener { if (work.status.isBusy) work.stop() else visit() }
        findViewById<Button>(R.id.add_example).setOnClickListener { addExample() }
        findViewById<Button>(R.id.delete_examples).setOnClickListener { change { work.examples.clear() } }
    }

    override fun onStart() {
        super.onStart()
        work.addListener(show)
        val memory = work.memory()
        findViewById<TextView>(R.id.device).text = getString(
            R.string.device, Runtime.getRuntime().availableProcessors(),
            memory.availableBytes / MIB, memory.totalBytes / MIB,
        )
        change { }
    }

    override fun onStop() {
        work.removeListener(show)
        keep()
        super.onStop()
    }

    override fun onDestroy() {
        disk.shutdown()
        super.onDestroy()
    }

    private fun choice(id: Int, now: Boolean, set: (Boolean) -> Unit) = with(findViewById<CompoundButton>(id)) {
        isChecked = now
        setOnCheckedChangeListener { _, chosen ->
            set(chosen)
            keep()
            VisitJob.plan(this@MainActivity)
        }
    }

    private fun visit() {
        keep()
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            // Where it is not given, the visit goes on without a notification.
            requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
        }
        VisitService.start(this)
    }

    private fun keep() {
        work.preferences.serviceUrl = textOf(R.id.service_url)
        work.preferences.population = textOf(R.id.population)
        work.preferences.enrolmentToken = textOf(R.id.token)
    }

    private fun addExample() {
        val text = textOf(R.id.example_text)
        val label = textOf(R.id.example_label)
        if (text.isBlank() || label.isBlank()) return
        findViewById<EditText>(R.id.example_text).setText("")
        change { work.examples.put(Example(text, label)) }
    }

    /** Change the examples on a thread that may wait for the disk, and show how many there are. */
    private fun change(action: () -> Unit) = disk.execute {
        val words = try {
            action()
            getString(R.string.example_count, work.examples.count())
        } catch (error: HetloraException) {
            error.message.orEmpty()
        }
        runOnUiThread { findViewById<TextView>(R.id.examples).text = words }
    }

    private fun textOf(id: Int): String = findViewById<EditText>(id).text.toString()
}
