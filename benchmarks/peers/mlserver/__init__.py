"""MLServer. Its code runs in its own environment; nothing here is imported by the benchmark."""
