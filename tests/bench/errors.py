"""The exception of this package."""


class BenchError(Exception):
    """A measurement could not be taken; the text says why, and is meant for the terminal."""
