"""The protocol's parameters that mean the same over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Container

from serve_app.errors import InvalidInput

_UNSUPPORTED = ("classification", "shared_memory_region")


def timeout_s(microseconds: object) -> float | None:
    """The request's own deadline, the parameter `timeout`; 0 means none."""
    if type(microseconds) is not int or microseconds < 0:
        raise InvalidInput(
            "timeout must be a whole number of microseconds, not negative", "parameters.timeout"
        )
    return microseconds / 1e6 or None


def check_output_parameters(parameters: Container[str], where: str) -> None:
    """Refuses what would change an output and is not supported; all else is ignored.

    Args:
        parameters: the names of the parameters of a requested output.
        where: path of the parameters in the request, for errors.
    """
    for name in _UNSUPPORTED:
        if name in parameters:
            raise InvalidInput(f"{name} is not supported", f"{where}.{name}")
