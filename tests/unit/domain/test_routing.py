"""The choice of a version: pure, deterministic, true to the weights and to readiness."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.domain.caller import UNKNOWN, Caller, MetadataCaller
from serve_app.domain.release import Mirror, Rule, Sticky
from serve_app.domain.routing import ModelRoute, choose_version
from serve_app.errors import ModelNotFound, NotReady, VersionNotFound
from serve_app.testing import model_route, route_table

SHARES = st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(any)
SEVERAL = st.lists(st.integers(1, 100), min_size=2, max_size=5)


def weights_of(shares: list[int]) -> dict[str, int]:
    """Weights that are together 100, about as the shares."""
    weights = [100 * share // sum(shares) for share in shares]
    weights[weights.index(max(weights))] += 100 - sum(weights)
    return {str(number): weight for number, weight in enumerate(weights, start=1)}


def chosen(
    model: ModelRoute, key: str = "any", pinned: str | None = None, caller: Caller = UNKNOWN
) -> str:
    return choose_version(model, pinned, key, caller).route.key.version


def counted(model: ModelRoute, keys: int = 20_000) -> Counter[str]:
    return Counter(chosen(model, f"id-{n}") for n in range(keys))


def test_one_candidate_takes_everything() -> None:
    assert chosen(model_route()) == "1"


@given(st.text(), SHARES)
def test_the_same_key_always_gets_the_same_version(key: str, shares: list[int]) -> None:
    weights = weights_of(shares)
    first, second = model_route(weights=weights), model_route(weights=weights)
    assert (
        chosen(first, key) == chosen(second, key) == chosen(pickle.loads(pickle.dumps(first)), key)
    )


@given(SEVERAL)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_traffic_follows_the_weights(shares: list[int]) -> None:
    weights = weights_of(shares)
    expected = {version: weight for version, weight in weights.items() if weight}
    found = counted(model_route(weights=weights), 5_000)
    assert set(found) <= set(expected)
    chi_square = sum((found[v] - 50 * w) ** 2 / (50 * w) for v, w in expected.items())
    assert chi_square < 23.5  # one in 10,000 with 4 degrees of freedom


@given(SHARES, SHARES)
@settings(max_examples=30, deadline=None)
def test_a_key_moves_only_to_where_the_weight_grew(before: list[int], after: list[int]) -> None:
    """No key goes from one version to another whose share did not grow relative to the first."""
    old, new = weights_of(before), weights_of(after)
    first, second = model_route(weights=old), model_route(weights=new)
    for n in range(300):
        here, there = chosen(first, str(n)), chosen(second, str(n))
        if here != there:
            assert new[there] * old[here] > old.get(there, 0) * new.get(here, 0)


def test_as_few_keys_move_as_can() -> None:
    keys = [f"user-{n}" for n in range(20_000)]
    before = model_route(weights={"1": 90, "2": 10})
    after = model_route(weights={"1": 80, "2": 20})
    moves = Counter((chosen(before, key), chosen(after, key)) for key in keys)
    assert moves["2", "1"] == 0
    assert moves["1", "2"] / len(keys) == pytest.approx(0.10, abs=0.01)


def test_the_assignment_is_the_same_in_every_process() -> None:
    code = (
        "from serve_app.testing import model_route; "
        "from serve_app.domain.routing import choose_version\n"
        "model = model_route(weights={'1': 50, '2': 30, '3': 20})\n"
        "print(''.join(choose_version(model, None, f'key-{n}').arm for n in range(60)))"
    )
    for seed in ("0", "4711"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        # Whoever changes this moves the users of every running experiment.
        assert run.stdout.strip() == GOLDEN


GOLDEN = "321311112311131121223122223122113312132111213221121123112323"


def test_models_and_salts_assign_independently() -> None:
    even = {"1": 50, "2": 50}
    sticky = [Sticky(by="header", name="x-user", salt=salt) for salt in ("", "a")]
    models = [
        model_route("one", weights=even, sticky=sticky[0]),
        model_route("two", weights=even, sticky=sticky[0]),
        model_route("one", weights=even, sticky=sticky[1]),
    ]
    users = [MetadataCaller({"x-user": str(n)}) for n in range(4_000)]
    arms = [[chosen(model, "id", caller=user) for user in users] for model in models]
    for other in arms[1:]:
        same = sum(a == b for a, b in zip(arms[0], other, strict=True))
        assert same / len(users) == pytest.approx(0.5, abs=0.04)


def test_a_version_that_is_not_ready_gets_nothing() -> None:
    weights = {"1": 50, "2": 25, "3": 25}
    found = counted(model_route(weights=weights, replicas={"1": 0}))
    assert set(found) == {"2", "3"}
    assert found["2"] / 20_000 == pytest.approx(0.5, abs=0.02)


def test_who_was_with_a_ready_version_stays_there_while_another_one_is_away() -> None:
    weights = {"1": 50, "2": 25, "3": 25}
    whole, partial = model_route(weights=weights), model_route(weights=weights, replicas={"1": 0})
    for n in range(2_000):
        if (version := chosen(whole, str(n))) != "1":
            assert chosen(partial, str(n)) == version


def test_weight_zero_gets_nothing_but_can_be_pinned() -> None:
    model = model_route(weights={"1": 100, "2": 0})
    assert set(counted(model, 100)) == {"1"}
    assert chosen(model, pinned="2") == "2"


def test_without_a_ready_version_the_one_that_is_missing_is_chosen() -> None:
    model = model_route(replicas={"1": 0})
    assert not model.ready
    for pinned in (None, "1"):
        assert choose_version(model, pinned, "x").route.replicas == 0


def test_unknown_names() -> None:
    table = route_table()
    with pytest.raises(ModelNotFound, match="'other' is not served"):
        table.model("other")
    with pytest.raises(VersionNotFound, match="no version '9'"):
        table.version("echo", "9")
    with pytest.raises(VersionNotFound):
        choose_version(table.model("echo"), "9", "x")


def test_a_release_of_versions_that_are_gone() -> None:
    model = model_route()
    lost = ModelRoute(model.name, "", model.inputs, model.outputs, {}, model.release)
    assert not lost.ready
    with pytest.raises(NotReady):
        choose_version(lost, None, "x")


def test_labels_are_versions_to_whoever_asks_for_them() -> None:
    model = model_route(
        weights={"1": 100}, replicas={"2": 1}, labels={"stable": "1", "canary": "2"}
    )
    assert chosen(model, pinned="canary") == "2"
    assert chosen(model, pinned="stable") == "1"
    assert route_table(model).version("echo", "canary").key.version == "2"
    with pytest.raises(VersionNotFound, match="'nightly'"):
        choose_version(model, "nightly", "x")


def rule(version: str, **match: object) -> Rule:
    return Rule.model_validate({"match": match, "version": version})


@pytest.mark.parametrize(
    ("metadata", "version"),
    [
        ({}, "1"),
        ({"x-cohort": "beta-7"}, "2"),
        ({"x-cohort": "alphabeta"}, "1"),
        ({"x-tenant-id": "acme"}, "3"),
        ({"x-tenant-id": "acme", "x-cohort": "beta"}, "2"),
        ({"x-a": "1"}, "1"),
        ({"x-a": "1", "x-b": "22"}, "3"),
        ({"x-a": "1", "x-b": "222"}, "1"),
    ],
)
def test_the_first_rule_that_matches_decides(metadata: Mapping[str, str], version: str) -> None:
    model = model_route(
        replicas={"2": 1, "3": 1},
        labels={"next": "3"},
        rules=(
            rule("2", header={"x-cohort": "beta*"}),
            rule("next", tenant="acme"),
            rule("3", header={"x-a": "*", "x-b": "2?"}),
        ),
    )
    choice = choose_version(model, None, "x", MetadataCaller(metadata))
    assert choice.route.key.version == version
    assert choice.arm == ("1" if version == "1" else "")
    assert chosen(model, pinned="1", caller=MetadataCaller(metadata)) == "1"


def test_a_rule_asks_for_everything_that_it_names() -> None:
    both = rule("2", header={"x-tenant-id": "a*"}, tenant="*b")
    model = model_route(replicas={"2": 1}, rules=(both,))
    tenants = ("ab", "a", "b")
    found = [chosen(model, caller=MetadataCaller({"x-tenant-id": each})) for each in tenants]
    assert found == ["2", "1", "1"]


def test_a_sticky_value_is_stronger_than_the_request_id() -> None:
    sticky = Sticky(by="header", name="x-user")
    model = model_route(weights={"1": 50, "2": 50}, sticky=sticky)
    user = MetadataCaller({"x-user": "u-1"})
    assert len({chosen(model, str(n), caller=user) for n in range(100)}) == 1
    assert len({chosen(model, str(n)) for n in range(100)}) == 2


def test_who_is_chosen_knows_its_spare() -> None:
    weights = {"1": 50, "2": 50}
    model = model_route(weights=weights, fallback="1", labels={"canary": "2"})
    for n in range(100):
        choice = choose_version(model, None, str(n))
        spare = None if choice.spare is None else choice.spare.key.version
        assert spare == {"1": None, "2": "1"}[choice.arm]
    assert choose_version(model, "2", "x").spare is None
    assert choose_version(model, "canary", "x").spare is None
    away = model_route(weights={"2": 100}, replicas={"1": 0}, fallback="1")
    assert choose_version(away, None, "x").spare is None
    alone = model_route(weights={"2": 100}, replicas={"1": 1, "2": 0}, fallback="1")
    assert alone.ready


@pytest.mark.parametrize(
    ("release", "measured", "asks"),
    [
        ({}, False, False),
        ({"sticky": Sticky(by="tenant")}, False, False),
        ({"weights": {"1": 100, "2": 0}}, True, False),
        ({"weights": {"1": 50, "2": 50}, "sticky": Sticky(by="tenant")}, True, True),
        ({"rules": (rule("1", tenant="a"),)}, False, True),
        ({"mirror": (Mirror(version="1", percent=5),)}, True, False),
        ({"outcomes": {"kind": "reward"}}, True, False),
    ],
)
def test_models_without_a_comparison_pay_nothing(
    release: dict[str, object], measured: bool, asks: bool
) -> None:
    model = model_route(**release)  # type: ignore[arg-type]
    assert (model.measured, model.asks) == (measured, asks)
