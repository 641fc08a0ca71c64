"""The cluster: the only package that imports Ray."""
