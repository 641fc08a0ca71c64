"""What an ingress counts of its arms, and what it tells of it."""

from __future__ import annotations

import numpy as np
import pytest

from serve_app import arms as arms_module
from serve_app.arms import ArmStatistics
from serve_app.domain.arms import ArmCounts, Exposing, ShadowCounts
from serve_app.domain.inference import VersionKey
from serve_app.evidence.histogram import BOUNDS, bound_above
from serve_app.testing import model_route

ONE, TWO = VersionKey("digits", "1"), VersionKey("digits", "2")
LOGITS = {"logits": np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)}


def exposing(sample: float = 100.0, kind: str = "label") -> Exposing:
    outcomes = {"kind": kind, "sample": sample, "output": "logits" if kind == "label" else None}
    found = model_route("digits", outcomes=outcomes).exposure
    assert found is not None
    return found


def test_requests_and_faults_are_counted_by_arm() -> None:
    arms = ArmStatistics()
    for seconds in (0.001, 0.001, 0.5):
        arms.count(ONE, seconds)
    arms.count_fault(ONE)
    arms.count_fault(TWO)
    report = arms.take("i", 3)
    assert report is not None
    assert (report.ingress, report.sequence) == ("i", 3)
    latency = report.arms[ONE].latency
    assert len(latency) == len(BOUNDS) + 1
    assert (latency[bound_above(0.001)], latency[bound_above(0.5)], sum(latency)) == (2, 1, 3)
    assert report.arms[ONE][:2] == (4, 1)
    assert report.arms[TWO] == ArmCounts(1, 1, (0,) * (len(BOUNDS) + 1))


def test_a_latency_beyond_all_bounds_is_counted() -> None:
    arms = ArmStatistics()
    arms.count(ONE, 1e9)
    report = arms.take("i", 1)
    assert report is not None
    assert report.arms[ONE].latency[-1] == 1


def test_a_report_holds_what_is_new() -> None:
    arms = ArmStatistics()
    assert arms.take("i", 1) is None
    arms.count(ONE, 0.1)
    assert arms.take("i", 1) is not None
    assert arms.take("i", 2) is None
    arms.shadow(TWO).dropped += 1
    report = arms.take("i", 2)
    assert report is not None
    assert report.arms == {}
    assert report.shadows == {TWO: ShadowCounts(0, 0, 1, 0)}


def test_an_exposure_has_the_predicted_class_of_each_row() -> None:
    arms = ArmStatistics()
    arms.count(TWO, 0.1)
    arms.expose(exposing(), TWO, "a", 2, LOGITS)
    arms.expose(exposing(kind="reward"), TWO, "b", 2, LOGITS)
    report = arms.take("i", 1)
    assert report is not None
    found = [(each.request_id, each.key, each.prediction) for each in report.exposures]
    assert found == [("a", TWO, (1, 0)), ("b", TWO, ())]
    assert report.exposures[0].at > 1_700_000_000


def test_a_sample_is_the_same_on_every_ingress() -> None:
    samples = []
    for _ in range(2):
        arms = ArmStatistics()
        arms.count(ONE, 0.1)
        for number in range(2_000):
            arms.expose(exposing(25.0), ONE, str(number), 1, {})
        report = arms.take("i", 1)
        assert report is not None
        samples.append([each.request_id for each in report.exposures])
    assert samples[0] == samples[1]
    assert len(samples[0]) == pytest.approx(500, abs=80)


def test_exposures_are_bounded_by_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms_module, "MAX_EXPOSED_ROWS", 5)
    arms = ArmStatistics()
    for _ in range(2):
        arms.count(ONE, 0.1)
        for name in "abc":
            arms.expose(exposing(), ONE, name, 2, LOGITS)
        report = arms.take("i", 1)
        assert report is not None
        assert [each.request_id for each in report.exposures] == ["a", "b"]
        assert report.exposures_dropped == 1


def test_disagreements_are_a_sample() -> None:
    arms = ArmStatistics()
    arms.shadow(TWO)
    for number in range(50):
        arms.disagree(str(number), ONE, TWO, {"y": "row 0: [1] against [2]"})
    report = arms.take("i", 1)
    assert report is not None
    assert len(report.disagreements) == arms_module.MAX_DISAGREEMENTS
    first = report.disagreements[0]
    assert (first.request_id, first.primary, first.shadow) == ("0", ONE, TWO)
