plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
    alias(libs.plugins.kotlin.serialization)
}

android {
    namespace = "dev.hetlora.app"
    compileSdk = 35

    defaultConfig {
        applicationId = "dev.hetlora.app"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "0.1.0"
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }

    packaging {
        // Tables and texts of BouncyCastle that nothing here reads, and what it has for newer Javas.
        resources.excludes += setOf("org/bouncycastle/pqc/**", "org/bouncycastle/x509/**", "META-INF/versions/**")
    }
}

dependencies {
    implementation(project(":sdk-core"))
    implementation(project(":trainer-ort"))
    implementation(libs.onnxruntime.android)
    testImplementation(libs.junit)
}
