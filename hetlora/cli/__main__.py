"""`python -m hetlora.cli`, the same as `hetlora`."""

from hetlora.cli.main import run_command

run_command()
