"""The `hetlora` command: one file per noun, each importing its part only when it is called."""
