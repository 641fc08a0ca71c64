"""Measures the cluster from outside: over HTTP, through its command line, and in /proc."""
