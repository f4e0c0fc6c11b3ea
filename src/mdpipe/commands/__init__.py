"""Commands that a person runs from the shell."""
