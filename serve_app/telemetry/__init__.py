"""Metrics and access log of the data path."""
