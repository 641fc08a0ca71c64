"""The error tree: codes, statuses, and survival of a trip between processes."""

from __future__ import annotations

import pickle

import pytest

from serve_app import errors
from serve_app.errors import ServeAppError, Unavailable
from tests.unit.error_tree import build, tree


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_survives_pickling(kind: type[ServeAppError]) -> None:
    before = build(kind)
    after = pickle.loads(pickle.dumps(before))
    assert (type(after), after.args, str(after)) == (kind, before.args, str(before))
    assert after.field == before.field


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_can_be_built_again_from_its_arguments(kind: type[ServeAppError]) -> None:
    before = build(kind)
    assert str(kind(*before.args)) == str(before)


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in tree()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", list(tree()))
def test_the_docstring_draws_every_error_with_its_status(kind: type[ServeAppError]) -> None:
    assert errors.__doc__ is not None
    line = next(line for line in errors.__doc__.splitlines() if kind.__name__ in line.split())
    if not issubclass(kind, errors.OperatorError):
        assert str(kind.status) in line


@pytest.mark.parametrize("kind", list(tree(Unavailable)))
def test_what_passes_says_when_to_come_back(kind: type[ServeAppError]) -> None:
    assert kind.status == 503
    assert kind.retryable
    assert kind.retry_after_s is not None
    assert kind.retry_after_s > 0


def test_client_faults_are_not_retryable() -> None:
    assert not any(kind.retryable for kind in tree(errors.RequestError))
