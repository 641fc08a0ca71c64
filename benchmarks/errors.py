"""What stops a benchmark."""


class BenchmarkError(Exception):
    """The benchmark cannot go on; the text says why and what to do."""
