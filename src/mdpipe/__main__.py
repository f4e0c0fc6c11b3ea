"""`python -m mdpipe` is the command line."""

from mdpipe.cli import app

app()
