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
    api(libs.kotlinx.serialization.json)
    implementation(libs.bouncycastle)
    testImplementation(libs.junit)
}

// What is for phones takes of java.* what Java 8 has; tests run on this machine's Java alone.
tasks.named<KotlinCompile>("compileKotlin") {
    compilerOptions.freeCompilerArgs.add("-Xjdk-release=1.8")
}

tasks.test {
    systemProperty("hetlora.contract", rootDir.resolve("../tests/contract").path)
    // Desktop Java's HttpURLConnection has no PATCH in its list of methods, Android's has.
    jvmArgs("--add-opens", "java.base/java.net=ALL-UNNAMED")
}

// Tests of other modules see those of this one.
val testArtifacts: Configuration by configurations.creating { isCanBeResolved = false }
val testJar by tasks.registering(Jar::class) {
    archiveClassifier.set("tests")
    from(sourceSets.test.get().output)
}
artifacts.add(testArtifacts.name, testJar)
