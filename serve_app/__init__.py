"""The application: everything that is true without Ray."""
