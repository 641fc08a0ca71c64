"""The configuration files, as a package so that `pkg://configs` resolves."""
