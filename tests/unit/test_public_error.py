"""What clients may know of errors, and how much of it."""

from __future__ import annotations

import pytest

from serve_app.errors import ClusterError, InvalidInput, ModelFailed, Overloaded, ServeAppError
from serve_app.public_error import public_detail, public_error, public_field, retry_delay_s


def test_what_is_not_for_clients_is_replaced() -> None:
    for exc in (ValueError("secret"), ClusterError("secret")):
        assert type(public_error(exc)) is ServeAppError
        assert "secret" not in public_detail(public_error(exc))
    known = Overloaded("full")
    assert public_error(known) is known
    assert public_detail(known) == "full"
    assert "secret" not in public_detail(ModelFailed("secret"))


@pytest.mark.parametrize("size", [1001, 10_000_000])
def test_what_a_client_sent_is_not_sent_back_without_bound(size: int) -> None:
    error = InvalidInput("d" * size, "f" * size)
    assert public_detail(error) == "d" * 999 + "…"
    assert public_field(error) == "f" * 199 + "…"


def test_what_is_short_stays_as_it_is() -> None:
    error = InvalidInput("d" * 1000, "f" * 200)
    assert (public_detail(error), public_field(error)) == ("d" * 1000, "f" * 200)
    assert public_field(InvalidInput("x")) is None


def test_refused_clients_do_not_come_back_together() -> None:
    error = Overloaded("full")
    error.retry_after_s = 10.0
    delays = {retry_delay_s(error) for _ in range(100)}
    assert 10.0 <= min(delays) < max(delays) <= 20.0
    assert 1.0 <= retry_delay_s(ServeAppError()) <= 2.0
