"""The example models: how their weights are made."""
