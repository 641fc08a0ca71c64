"""Models that exist to measure the way to a model, not the model."""
