"""Training runtimes, one file each; a runtime's library is imported inside its file alone."""
