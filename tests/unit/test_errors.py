"""The error tree: codes, statuses, and survival of a trip between processes."""

from __future__ import annotations

import pickle

import pytest

from serve_app import errors
from serve_app.errors import RevisionConflict, ServeAppError, StoreUnavailable, Unavailable
from tests.unit.error_tree import build, tree


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_survives_pickling(kind: type[ServeAppError]) -> None:
    before = build(kind, "a")
    after = pickle.loads(pickle.dumps(before))
    assert (type(after), after.args, str(after)) == (kind, before.args, str(before))
    assert after.field == before.field


@pytest.mark.parametrize("kind", list(tree()))
def test_every_error_can_be_built_again_from_its_arguments(kind: type[ServeAppError]) -> None:
    before = build(kind, "a")
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


def test_a_conflict_names_both_revisions() -> None:
    conflict = RevisionConflict("digits", 7, 8)
    assert str(conflict) == "model 'digits' was expected at revision 7, but revision 8 is in force"
    assert "it has none yet" in str(RevisionConflict("digits", 7, 0))


def test_what_is_wrong_with_the_database_is_no_clients_business() -> None:
    error = pickle.loads(pickle.dumps(StoreUnavailable("database postgresql://u@db.internal/x")))
    assert error.reason == "database postgresql://u@db.internal/x"
    assert "db.internal" not in str(error)
