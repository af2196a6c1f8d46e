import org.jetbrains.kotlin.gradle.tasks.KotlinCompile

plugins {
    `java-library`
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

dependencies {
    api(project(":sdk-core"))
    // Whoever runs it brings the build for his machine: an app onnxruntime-android, a desktop this one.
    compileOnly(libs.onnxruntime.desktop)
    testImplementation(libs.onnxruntime.desktop)
    testImplementation(project(mapOf("path" to ":sdk-core", "configuration" to "testArtifacts")))
    testImplementation(libs.bouncycastle)
    testImplementation(libs.junit)
}

tasks.named<KotlinCompile>("compileKotlin") {
    compilerOptions.freeCompilerArgs.add("-Xjdk-release=1.8")
}

tasks.test {
    systemProperty("hetlora.contract", rootDir.resolve("../tests/contract").path)
}
