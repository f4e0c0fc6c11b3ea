"""Commands that a person runs from the shell.

Each ends with a ValueError if its arguments, params.yaml or a file that it reads do not fit; `mdpipe.cli` prints the
message, which names what is wrong and what to do, in place of a traceback.
"""
