"""The same steps on every client: Python, Kotlin on a Java machine, TypeScript in Node and in Chromium."""
