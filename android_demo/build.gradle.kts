import org.jetbrains.kotlin.gradle.dsl.JvmTarget
import org.jetbrains.kotlin.gradle.dsl.KotlinVersion
import org.jetbrains.kotlin.gradle.tasks.KotlinCompile

plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.kotlin.android) apply false
    alias(libs.plugins.kotlin.jvm) apply false
    alias(libs.plugins.kotlin.serialization) apply false
}

// The flags of ci/compilation.py, which continuous integration compiles with; a test holds the two together.
subprojects {
    tasks.withType<KotlinCompile>().configureEach {
        compilerOptions {
            languageVersion.set(KotlinVersion.KOTLIN_1_9)
            apiVersion.set(KotlinVersion.KOTLIN_1_9)
            jvmTarget.set(JvmTarget.JVM_1_8)
            // Continuous integration compiles the app against another android.jar, which deprecates less.
            allWarningsAsErrors.set(project.name != "app")
            progressiveMode.set(true)
            freeCompilerArgs.addAll("-Xlambdas=class", "-Xsam-conversions=class")
        }
    }
}
