from __future__ import annotations

import pytest

from serve_app.domain.arms import ArmCounts
from serve_app.domain.release import (
    DisagreementGuard,
    ErrorGuard,
    Guards,
    LatencyGuard,
    OutcomeGuard,
    Outcomes,
)
from serve_app.evidence import LatencyHistogram, Moments
from serve_app.rollout import guards
from serve_app.rollout.checks import EventRatio, LatencyRatio
from serve_app.rollout.measure import FAULTS
from serve_app.rollout.side import Side

LABELS = Outcomes(kind="label", output="logits")


def side(requests: int, faults: int = 0, seconds: float = 0.01) -> Side:
    latency = LatencyHistogram()
    latency.add_all([seconds] * requests)
    found = Side()
    found.add_arm(ArmCounts(requests, faults, tuple(int(each) for each in latency.counts)))
    return found


def test_every_limit_has_its_part_of_alpha() -> None:
    built = guards.build(
        Guards(
            error_rate=ErrorGuard(max=0.05, ratio=2),
            latency=(LatencyGuard(quantile=0.5, max_ms=50, ratio=2), LatencyGuard(ratio=2)),
            disagreement=DisagreementGuard(max=0.1),
            outcome=OutcomeGuard(margin=0.1),
            alpha=0.07,
        ),
        LABELS,
    )
    names = [guard.name for guard in built]
    assert names == ["error_rate", "latency_p50", "latency_p99", "disagreement", "outcome"]
    for guard in built:
        for check in guard.checks:
            (finding,) = check.findings()
            # Half of it for comparisons side by side: the rest is for the last step.
            own = isinstance(check, EventRatio | LatencyRatio)
            assert finding.alpha == pytest.approx(0.005 if own else 0.01)


def test_outcomes_are_guarded_only_where_there_are_any() -> None:
    only = Guards(error_rate=None, latency=(), outcome=OutcomeGuard())
    assert guards.build(only, None) == ()
    assert len(guards.build(only, LABELS)) == 1


def test_an_absolute_limit_on_a_quantile_is_one_on_the_requests_above_it() -> None:
    only = Guards(error_rate=None, latency=(LatencyGuard(quantile=0.99, max_ms=200),))
    (guard,) = guards.build(only, None)
    (check,) = guard.checks
    new = side(5_000, seconds=0.2)
    new.merge(side(40, seconds=0.5))
    check.update(new, Side())
    assert not check.findings()[0].broken
    new.merge(side(100, seconds=0.5))
    check.update(new, Side())
    (finding,) = check.findings()
    assert (finding.broken, finding.limit) == (True, "200 ms")
    words = guard.breach(("version 2", "version 1"), new, Side())
    assert words is not None
    assert words.startswith("p99 latency of version 2: 500 ms in 5,140 requests (limit 200 ms)")


def test_what_cannot_be_compared_yet_is_not_lost() -> None:
    check = EventRatio(FAULTS, 1.0, "", 0.01)
    new, former = Side(), Side()
    for _ in range(20):
        new.merge(side(5, faults=5))
        check.update(new, former)
    assert check.findings()[0].chance == 1.0
    former.merge(side(100))
    check.update(new, former)
    assert check.findings()[0].broken


def test_latencies_wait_for_each_other_too() -> None:
    check = LatencyRatio(0.5, 1.5, "", 0.01)
    check.begin(side(1000))
    new, former = side(200, seconds=0.1), Side()
    check.update(new, former)
    assert not check.findings()[0].broken
    former.merge(side(200))
    check.update(new, former)
    assert check.findings()[0].broken


def test_a_frozen_limit_is_above_what_the_record_had() -> None:
    check = EventRatio(FAULTS, 2.0, "", 0.01)
    check.freeze(side(10_000, faults=100), Side())
    assert check.findings()[-1].limit == "3.14 %, from the former record of 100 in 10,000"
    new = side(5_000, faults=100)
    check.update(new, Side())
    assert not check.findings()[-1].broken
    new.merge(side(1_000, faults=200))
    check.update(new, Side())
    assert check.findings()[-1].broken


def test_a_frozen_limit_judges_only_what_comes_after_it() -> None:
    check, new = EventRatio(FAULTS, 2.0, "", 0.01), side(100, faults=100)
    check.freeze(side(10_000), new)
    check.update(new, Side())
    assert check.findings()[-1].chance == 1.0


@pytest.mark.parametrize("requests", [0, 5])
def test_a_record_that_says_too_little_sets_no_limit(requests: int) -> None:
    rate, latency = EventRatio(FAULTS, 2.0, "", 0.01), LatencyRatio(0.99, 2.0, "", 0.01)
    for check in (rate, latency):
        check.freeze(side(requests), Side())
        assert len(check.findings()) == 1


def test_a_frozen_quantile() -> None:
    check = LatencyRatio(0.99, 2.0, "", 0.01)
    check.freeze(side(5_000, seconds=0.1), Side())
    assert check.findings()[-1].limit == "204 ms, from the former record of 5,000 requests"
    check.update(side(1_000, seconds=0.2), Side())
    assert not check.findings()[-1].broken
    check = LatencyRatio(0.99, 2.0, "", 0.01)
    check.freeze(side(5_000, seconds=0.1), Side())
    check.update(side(20, seconds=0.25), Side())
    assert check.findings()[-1].broken


def test_parts_of_wrong_labels_add_up() -> None:
    found = Side()
    for _ in range(10):
        found.outcomes += Moments.of([0.75])
    assert found.wrong == 2


def test_states_of_other_guards_are_refused() -> None:
    own = guards.build(Guards(), None)
    other = guards.build(Guards(error_rate=None), None)
    with pytest.raises((ValueError, KeyError)):
        guards.restore(other, guards.state(own))


@pytest.mark.parametrize(
    ("chance", "words"),
    [(0.00213, "0.003"), (0.5, "0.5"), (1.0, "1"), (0.03, "0.03"), (1e-30, "0.000001")],
)
def test_chances_are_rounded_up(chance: float, words: str) -> None:
    assert guards._above(chance) == words
