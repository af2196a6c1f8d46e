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

/** All of the app: what goes on, whether and when to take part, the examples, and what the model answers. */
class MainActivity : Activity() {
    private lateinit var work: DeviceWork
    private lateinit var disk: ExecutorService
    private var token = "" // as it is kept, or was until the device was admitted
    private val show = { status: Status ->
        findViewById<TextView>(R.id.status).text = status.words
        val round = status.page.round
        findViewById<TextView>(R.id.plan).text = round.plan
        findViewById<TextView>(R.id.scores).text = scoresInWords(this, round)
        findViewById<TextView>(R.id.visits).text = visitsInWords(this, status.page.visits)
        findViewById<LossCurve>(R.id.curve).points = round.points
        findViewById<CompoundButton>(R.id.take_part).isChecked = work.preferences.takesPart
        forgetToken()
        findViewById<Button>(R.id.visit).setText(if (status.isBusy) R.string.stop else R.string.visit_now)
        with(findViewById<ProgressBar>(R.id.progress)) {
            max = round.steps
            progress = round.step
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
            token = enrolmentToken
            findViewById<EditText>(R.id.token).setText(token)
            choice(R.id.take_part, takesPart) { takesPart = it }
            choice(R.id.charging, whileCharging) { whileCharging = it }
            choice(R.id.unmetered, whileUnmetered) { whileUnmetered = it }
            choice(R.id.idle, whileIdle) { whileIdle = it }
        }
        findViewById<Button>(R.id.visit).setOnClickListener { if (work.status.isBusy) work.stop() else visit() }
        findViewById<Button>(R.id.add_example).setOnClickListener { addExample() }
        findViewById<Button>(R.id.delete_examples).setOnClickListener { change { work.examples.clear() } }
        findViewById<Button>(R.id.ask).setOnClickListener { ask() }
        findViewById<Button>(R.id.other_kind).setOnClickListener { answer { work.answers.useOtherKind() } }
        findViewById<Button>(R.id.roll_back).setOnClickListener { answer { work.answers.rollBack() } }
    }

    override fun onStart() {
        super.onStart()
        work.addListener(show)
        findViewById<TextView>(R.id.device).setText(R.string.measuring)
        change { }
        answer { }
        write(R.id.device) { work.deviceInWords() }
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
        forgetToken()
        work.preferences.serviceUrl = textOf(R.id.service_url)
        work.preferences.population = textOf(R.id.population)
        token = textOf(R.id.token).trim()
        work.preferences.enrolmentToken = token
    }

    /** A device that was admitted has dropped it: what is shown would be kept again. */
    private fun forgetToken() {
        if (token.isEmpty() || work.preferences.enrolmentToken.isNotEmpty()) return
        if (textOf(R.id.token).trim() == token) findViewById<EditText>(R.id.token).setText("")
        token = ""
    }

    private fun addExample() {
        val text = textOf(R.id.example_text)
        val label = textOf(R.id.example_label)
        if (text.isBlank() || label.isBlank()) return
        findViewById<EditText>(R.id.example_text).setText("")
        change { work.examples.put(Example(text, label)) }
    }

    /** Change the examples, and show how many there are. */
    private fun change(action: () -> Unit) = write(R.id.examples) {
        action()
        getString(R.string.example_count, work.exampleCount)
    }

    private fun ask() {
        val text = textOf(R.id.question)
        if (text.isNotBlank()) write(R.id.answer) { predictionsInWords(this, work.answers.of(text)) }
    }

    /** Change the adapter in use, and show which it is. */
    private fun answer(action: () -> Unit) = write(R.id.adapter) {
        action()
        adapterInWords(this, work.answers.adapter())
    }

    /** Have words made on a thread that may wait for disk and model, and show them, or why there are none. */
    private fun write(id: Int, words: () -> String) = disk.execute {
        val shown = try {
            words()
        } catch (error: HetloraException) {
            error.message
        } catch (error: OutOfMemoryError) {
            getString(R.string.no_runtime, error.message.orEmpty())
        } catch (error: LinkageError) { // a native library that is not there
            getString(R.string.no_runtime, error.message.orEmpty())
        }
        runOnUiThread { findViewById<TextView>(id).text = shown }
    }

    private fun textOf(id: Int): String = findViewById<EditText>(id).text.toString()
}
