"""What different users of the cluster do; `benchmarks/locustfile.py` puts them together."""
