from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from serve_app.domain.release import Candidate, Outcomes, Release
from serve_app.evidence import Arm, Moments
from serve_app.rollout import control_of, report, svg, text

LABELS = Outcomes(kind="label", output="logits")
SVG = "{http://www.w3.org/2000/svg}"


def arm(name: str, right: int, outcomes: int, exposures: int = 5000) -> Arm:
    return Arm(name, exposures, Moments.of_counts(right, outcomes))


def clear() -> dict[str, Any]:
    arms = [arm("2", 2450, 2520), arm("1", 2250, 2500)]
    return report("digits", LABELS, arms, "1", at=1.7e9)


def documents() -> dict[str, dict[str, Any]]:
    generator = np.random.default_rng(1)
    rewards = [
        Arm("1", 900, Moments.of(generator.gamma(2, 5, 400))),
        Arm("2", 90, Moments.of(generator.gamma(2, 5, 40))),
        Arm("<3&4>", 9, Moments()),
    ]
    one = Arm("1", 3, Moments.of([7.0]))
    return {
        "clear": clear(),
        "open": report("digits", LABELS, [arm("1", 90, 100), arm("2", 91, 100)], "1", at=0),
        "rewards": report("shop", Outcomes(kind="reward"), rewards, "1", at=0),
        "alone": report("shop", Outcomes(kind="number", better="lower"), [one], "1", at=0),
        "nothing": report("digits", LABELS, [arm("1", 0, 0, 0), arm("2", 0, 0, 0)], "1", at=0),
        "the same": report(
            "shop", Outcomes(kind="reward"),
            [Arm(name, 200, Moments.of([0.0] * 200)) for name in ("1", "2")], "2", at=0,
        ),
    }  # fmt: skip


def test_the_better_version_wins() -> None:
    found = clear()
    assert [each["version"] for each in found["arms"]] == ["1", "2"]
    assert (found["conclusion"], found["winner"], found["control"]) == ("winner", "2", "1")
    assert found["verdict"].startswith("Version 2 is better than version 1.")
    (comparison,) = found["comparisons"]
    assert comparison["version"] == "2"
    assert comparison["finding"] == "better"
    assert 0 < comparison["low"] < comparison["difference"] < comparison["high"]
    assert found["arms"][0] == {
        "version": "1", "exposures": 5000, "outcomes": 2500, "mean": 0.9,
        "low": pytest.approx(0.8757, abs=1e-4), "high": pytest.approx(0.9212, abs=1e-4),
    }  # fmt: skip


def test_less_may_be_better() -> None:
    arms = [Arm("1", 900, Moments.of([5.0, 6.0] * 200)), Arm("2", 900, Moments.of([2.0, 3.0] * 99))]
    lower = report("m", Outcomes(kind="number", better="lower"), arms, "1", at=0)
    assert lower["winner"] == "2"
    assert lower["arms"][1]["mean"] == 2.5
    assert report("m", Outcomes(kind="number"), arms, "1", at=0)["winner"] == "1"


def test_one_arm_alone_is_no_comparison() -> None:
    found = documents()["alone"]
    assert found["verdict"] == "Nothing to compare: only version 1 has had traffic."
    assert (found["arms"][0]["low"], found["arms"][0]["high"]) == (None, None)


def test_a_false_winner_is_rare_however_often_one_looks() -> None:
    false = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        ones, twos = Moments(), Moments()
        for _ in range(20):
            ones += Moments.of_counts(int(generator.binomial(50, 0.9)), 50)
            twos += Moments.of_counts(int(generator.binomial(50, 0.9)), 50)
            found = report("m", LABELS, [Arm("1", 0, ones), Arm("2", 0, twos)], "1", at=0)
            if found["winner"] is not None:
                false += 1
                break
    assert false < 0.05 * 200


@pytest.mark.parametrize(
    ("arms", "control"),
    [([arm("1", 1, 2)], "2"), ([arm("1", 1, 2), arm("1", 1, 2)], "1"), ([], "1")],
)
def test_what_cannot_be_compared(arms: list[Arm], control: str) -> None:
    with pytest.raises(ValueError, match="no comparison"):
        report("m", LABELS, arms, control, at=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"labels": {"stable": "2"}, "fallback": "1"}, "2"),
        ({"labels": {"stable": "9"}, "fallback": "3"}, "3"),
        ({"fallback": "9"}, "1"),
        ({}, "1"),
    ],
)
def test_which_arm_is_the_control(changes: dict[str, Any], expected: str) -> None:
    candidates = [("0", 0), ("1", 40), ("2", 30), ("3", 30)]
    shares = tuple(Candidate(version=name, weight=weight) for name, weight in candidates)
    assert control_of(Release(candidates=shares, **changes)) == expected


@pytest.mark.parametrize("name", documents())
def test_every_report_is_json_and_can_be_drawn(name: str) -> None:
    document = json.loads(json.dumps(documents()[name], allow_nan=False))
    picture = ElementTree.fromstring(svg(document))
    width, height = (float(picture.attrib[key]) for key in ("width", "height"))
    texts = [element.text or "" for element in picture.iter(f"{SVG}text")]
    for each in document["arms"]:
        assert f"version {each['version']}" in texts
    for element in [*picture.iter(f"{SVG}rect"), *picture.iter(f"{SVG}circle")][1:]:
        x = float(element.attrib.get("x", element.attrib.get("cx", "nan")))
        y = float(element.attrib.get("y", element.attrib.get("cy", "nan")))
        assert 0 <= x <= width
        assert 0 <= y <= height
    for columns in (40, 80, 120):
        lines = text(document, columns).splitlines()
        assert max(map(len, lines)) <= columns
        assert text(document, columns).isascii()
        assert " ".join(document["verdict"].split()) in " ".join(" ".join(lines).split())


def test_bars_lie_where_their_numbers_are() -> None:
    picture = ElementTree.fromstring(svg(clear()))
    bars = [element for element in picture.iter(f"{SVG}rect") if "rx" in element.attrib]
    points = [float(element.attrib["cx"]) for element in picture.iter(f"{SVG}circle")]
    ends = [
        (float(bar.attrib["x"]), float(bar.attrib["x"]) + float(bar.attrib["width"]))
        for bar in bars
    ]
    assert ends[0][0] < points[0] < ends[0][1] < ends[1][0] < points[1] < ends[1][1]


def test_long_names_are_cut() -> None:
    arms = [arm("1", 90, 100), arm("a-very-long-name-of-a-version", 90, 100)]
    picture = svg(report("m", LABELS, arms, "1", at=0))
    assert ">version a-very-long-n…<" in picture
