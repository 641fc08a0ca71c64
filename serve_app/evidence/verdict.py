"""Which arm of an A/B test is better, said so that it may be read at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serve_app.evidence.intervals import (
    Interval,
    anytime_difference,
    anytime_mean,
    anytime_proportion,
)
from serve_app.evidence.margin import ENOUGH
from serve_app.evidence.moments import Moments

Finding = Literal["better", "worse", "open"]
Conclusion = Literal["winner", "no difference yet", "not enough data"]


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm has brought."""

    name: str
    exposures: int
    """Requests that were assigned to it, with or without an outcome."""
    outcomes: Moments


@dataclass(frozen=True, slots=True)
class Summary:
    """One arm in numbers."""

    name: str
    exposures: int
    outcomes: int
    mean: float
    interval: Interval
    """Of the mean, valid at all times; of this arm alone."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm against the control."""

    name: str
    difference: float
    """Of the means, arm - control."""
    interval: Interval
    """Of that difference, valid at all times and for all comparisons together."""
    finding: Finding
    """What is shown of the arm."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the data say, and what that rests on."""

    conclusion: Conclusion
    winner: str | None
    sentence: str
    """For people."""
    confidence: float
    arms: tuple[Summary, ...]
    """The control first."""
    comparisons: tuple[Comparison, ...]


def summarize(arm: Arm, *, binary: bool, confidence: float = 0.95) -> Summary:
    """One arm in numbers.

    Raises:
        ValueError: a confidence that is none, or outcomes that cannot be 0 or 1.
    """
    interval = _interval(arm.outcomes, binary, confidence)
    return Summary(arm.name, arm.exposures, arm.outcomes.count, arm.outcomes.mean, interval)


def verdict(
    control: Arm,
    others: Sequence[Arm],
    *,
    binary: bool,
    more_is_better: bool = True,
    confidence: float = 0.95,
    enough: int = ENOUGH,
) -> Verdict:
    """Compares each arm with the control.

    The intervals hold at all times, so it may be asked after every outcome and acted on as soon as
    it names a winner. With several arms each comparison has its part of the error (Bonferroni).

    Args:
        control: what the others are held against.
        others: at least one.
        binary: outcomes are 0 or 1: each arm's own interval is then exact.
        more_is_better: whether a high mean is good.
        confidence: that nothing false is ever said about any arm.
        enough: outcomes that each arm needs before anything is said.

    Raises:
        ValueError: no others, two arms of one name, or a confidence that is none.
    """
    arms = (control, *others)
    if not others or len({arm.name for arm in arms}) < len(arms):
        raise ValueError("a verdict needs two or more arms, each with a name of its own")
    each = 1 - (1 - confidence) / len(others)
    sign = 1 if more_is_better else -1
    comparisons = tuple(_compare(arm, control, each, sign) for arm in others)
    conclusion, winner = _conclude(control, others, comparisons, sign)
    short = [arm.name for arm in arms if arm.outcomes.count < enough]
    if short:
        conclusion, winner = "not enough data", None
        counts = ", ".join(f"{arm.name} has {arm.outcomes.count:,}" for arm in arms)
        sentence = f"Not enough data: every arm needs {enough:,} outcomes; {counts}."
    elif winner is None:
        sentence = f"No difference can be shown yet. {_numbers(comparisons, binary, confidence)}"
    else:
        sentence = _praise(winner, control, comparisons, more_is_better)
        sentence = f"{sentence} {_numbers(comparisons, binary, confidence)}"
    summaries = tuple(summarize(arm, binary=binary, confidence=confidence) for arm in arms)
    return Verdict(conclusion, winner, sentence, confidence, summaries, comparisons)


def _interval(outcomes: Moments, binary: bool, confidence: float) -> Interval:
    if not binary:
        return anytime_mean(outcomes, confidence)
    return anytime_proportion(round(outcomes.total), outcomes.count, confidence)


def _compare(arm: Arm, control: Arm, confidence: float, sign: int) -> Comparison:
    interval = anytime_difference(arm.outcomes, control.outcomes, confidence)
    finding: Finding = "open"
    if interval.low > 0 or interval.high < 0:
        finding = "better" if (interval.low > 0) == (sign > 0) else "worse"
    return Comparison(arm.name, arm.outcomes.mean - control.outcomes.mean, interval, finding)


def _conclude(
    control: Arm, others: Sequence[Arm], comparisons: Sequence[Comparison], sign: int
) -> tuple[Conclusion, str | None]:
    """An arm wins that beats the control; the control wins when it beats every arm."""
    better = [arm for arm, its in zip(others, comparisons, strict=True) if its.finding == "better"]
    if better:
        return "winner", max(better, key=lambda arm: sign * arm.outcomes.mean).name
    if all(each.finding == "worse" for each in comparisons):
        return "winner", control.name
    return "no difference yet", None


def _praise(
    winner: str, control: Arm, comparisons: Sequence[Comparison], more_is_better: bool
) -> str:
    others = [each.name for each in comparisons]
    if winner == control.name:
        return f"{winner} is better than {_listed(others)}."
    equals = [each.name for each in comparisons if each.finding == "better" and each.name != winner]
    also = ""
    if equals:
        extreme = "highest" if more_is_better else "lowest"
        also = (
            f", and so {'is' if len(equals) == 1 else 'are'} {_listed(equals)}; {winner} has the "
        )
        also += f"{extreme} mean of them, which alone does not show that it is better than they are"
    return f"{winner} is better than {control.name}{also}."


def _numbers(comparisons: Sequence[Comparison], binary: bool, confidence: float) -> str:
    scale, unit = (100.0, " points") if binary else (1.0, "")
    texts = []
    for each in comparisons:
        low, high = (scale * end for end in each.interval)
        difference = f"{scale * each.difference:+.3g}{unit}"
        texts.append(f"{each.name} {difference} (between {low:+.3g} and {high:+.3g})")
    held = "at every look" if len(comparisons) == 1 else "for all of them and at every look"
    sure = f"with {100 * confidence:.4g} % confidence {held}"
    return f"Against the control: {'; '.join(texts)}, {sure}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
