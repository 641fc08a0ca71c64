"""The state machine of one rollout: what is to be done, from what has been counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from serve_app.domain.arms import IngressReport
from serve_app.domain.control import Author, RolloutState, Steering
from serve_app.evidence import Moments
from serve_app.rollout import guards
from serve_app.rollout.intake import Intake
from serve_app.rollout.progress import Progress
from serve_app.rollout.side import Side
from serve_app.rollout.terms import Terms, named

SILENT_S = 10.0
"""Without a report from any ingress for longer than this, a rollout pauses."""

LOST_S = 5.0
"""A new version may be without a ready replica for so long: one that restarts is back by then."""

ACTOR = "rollout"
"""Who a change is by that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something has happened that is to be stored, and perhaps published."""

    state: RolloutState
    step: int
    reason: str
    """In words."""
    actor: str
    weights: Mapping[str, int] | None
    """To be put in force now as a revision; None leaves them as they are."""
    evidence: Mapping[str, Any]


class RolloutMachine:
    """Watches one rollout of one model. See the package for how it is used."""

    def __init__(self, model: str, terms: Terms, now: float) -> None:
        """A pending rollout that has seen nothing.

        Args:
            model: whose reports it takes.
            terms: from where to where, and how.
            now: seconds since the epoch.
        """
        self.model, self.terms = model, terms
        reason = f"waiting for {terms.names[0]} to be ready"
        self._progress = Progress(now, now, now, reason=reason, actor=ACTOR)
        self._intake = Intake()
        self._baseline, self._former, self._new = Side(), Side(), Side()
        self._guards = guards.build(terms.strategy.guards, terms.outcomes)

    @property
    def progress(self) -> Progress:
        """State, step, reason and clocks; to read only."""
        return self._progress

    @property
    def weights(self) -> dict[str, int]:
        """What is to be in force, for whoever could not publish a change; void if it gave way."""
        if self._progress.state == "promoted":
            return dict(self.terms.target)
        rolled_back = self._progress.state == "rolled_back"
        return self.terms.weights(-1 if rolled_back else self._progress.step)

    def observe(self, report: IngressReport) -> bool:
        """Counts a report once; False if it has been counted before.

        Raises:
            ValueError: it holds what cannot be; the rest of it is lost, and it counts as taken.
        """
        if not self._intake.take(report.ingress, report.sequence):
            return False
        self._progress.heard = True
        for key, counts in report.arms.items():
            if key.model == self.model and (side := self._side(key.version)) is not None:
                side.add_arm(counts)
        for key, shadow in report.shadows.items():
            # Mirrored requests are evidence about the new versions from the very beginning.
            if key.model == self.model and key.version in self.terms.new:
                self._new.add_shadow(shadow)
        return True

    def record(self, outcomes: Mapping[str, Moments], through: int) -> bool:
        """Counts outcomes that were reported since the last call; False if they were counted.

        Args:
            outcomes: version -> outcomes after `progress.through`; for labels each is the share of
                its rows that were right.
            through: number of the last of them; outcomes are numbered as they come.
        """
        if through <= self._progress.through:
            return False
        self._progress.through = through
        sign = guards.mean_sign(self.terms.outcomes) if self.terms.outcomes is not None else 1
        for version, its in outcomes.items():
            side = self._side(version)
            if side is not None:
                side.outcomes += Moments(its.count, sign * its.total, its.deviations)
        return True

    def tick(self, now: float, ready: Collection[str], *, stored: bool = True) -> Change | None:
        """Looks at everything once; to be called each second.

        Args:
            now: seconds since the epoch.
            ready: the versions that have a ready replica, from somebody who knows: a router that
                has just started waits until it has heard of all of them.
            stored: whether its last change has been stored. Until then it only ever goes back.
        """
        progress = self._progress
        if progress.final:
            return None
        if progress.step < 0:
            return self._await(now, ready, stored)
        lost = self._unready(self.weights, ready)
        progress.watch(now, bool(lost))
        breach = self._judge()
        if breach is None and progress.lost > LOST_S:
            breach = f"{named(lost)} has no ready replica"
        if breach is not None:
            return self._retreat(now, ready, breach)
        if not stored or progress.state != "progressing":
            return None
        return self._advance(now, ready)

    def steer(self, verb: Steering, author: Author, now: float, ready: Collection[str]) -> Change:
        """What somebody wants.

        Raises:
            ValueError: it is not in a state for this, or a new version is not ready.
        """
        state = self._progress.state
        if self._progress.final or verb == ("pause" if state == "paused" else "resume"):
            raise ValueError(f"the rollout is {state.replace('_', ' ')}")
        by = f"by {author.actor}: {author.reason}" if author.reason else f"by {author.actor}"
        if verb == "pause":
            return self._change(now, "paused", f"paused {by}", author.actor)
        if verb == "rollback":
            return self._change(now, "rolled_back", f"rolled back {by}", author.actor)
        if verb == "resume":
            self._progress.restart(now)
            resumed: RolloutState = "progressing" if self._progress.step >= 0 else "pending"
            return self._change(now, resumed, f"resumed {by}", author.actor)
        unready = self._unready(self.terms.target, ready)
        if unready:
            raise ValueError(f"{named(unready)} has no ready replica")
        return self._change(now, "promoted", f"promoted {by}", author.actor)

    def give_way(self, author: Author, now: float) -> Change:
        """Ends it because somebody has put other weights in force; publishes none.

        Raises:
            ValueError: it has ended already.
        """
        if self._progress.final:
            raise ValueError(f"the rollout is {self._progress.state.replace('_', ' ')}")
        reason = f"{author.actor} has put other weights in force"
        return replace(self._change(now, "rolled_back", reason, author.actor), weights=None)

    def evidence(self) -> dict[str, Any]:
        """Per guard what was counted and how sure it is, and what the step waits for, for JSON."""
        former, progress = self._record(), self._progress
        found = {guard.name: guard.document(self._new, former) for guard in self._guards}
        found["step"] = {
            "percent": self.terms.steps[progress.step] if progress.step >= 0 else 0,
            "seconds": round(max(progress.ticked_at - progress.since, 0.0), 3),
            "bake_s": self.terms.strategy.bake_s,
            "answered": self._answered,
            "min_samples": self.terms.strategy.min_samples,
        }
        return found

    def to_state(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "model": self.model,
            "terms": self.terms.model_dump(mode="json"),
            "progress": self._progress.state_document(),
            "intake": self._intake.state(),
            "baseline": self._baseline.state(),
            "former": self._former.state(),
            "new": self._new.state(),
            "guards": guards.state(self._guards),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The reverse of `to_state`.

        Raises:
            ValueError: it is not the state of a rollout, or of another version of this machine.
        """
        try:
            found = cls(state["model"], Terms.model_validate(state["terms"]), 0.0)
            found._progress = Progress.from_state(state["progress"])
            found._intake = Intake.from_state(state["intake"])
            found._baseline = Side.from_state(state["baseline"])
            found._former = Side.from_state(state["former"])
            found._new = Side.from_state(state["new"])
            guards.restore(found._guards, state["guards"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the state of a rollout, as it is kept now: {error!r}") from error
        return found

    def _side(self, version: str) -> Side | None:
        # What the new versions did before their first step is no evidence about the rollout.
        begun = self._progress.step >= 0
        if version in self.terms.new:
            return self._new if begun else None
        if version in self.terms.former:
            return self._former if begun else self._baseline
        return None

    def _record(self) -> Side:
        """All that the former side has served."""
        found = Side()
        found.merge(self._baseline)
        found.merge(self._former)
        return found

    @property
    def _answered(self) -> int:
        """Requests that the new side has answered in this step."""
        return self._new.requests - self._new.faults - self._progress.answered_from

    def _unready(self, weights: Mapping[str, int], ready: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in self.terms.new if weights[name] and name not in ready)

    def _await(self, now: float, ready: Collection[str], stored: bool) -> Change | None:
        """Before the first step: the new versions must be ready, and the former ones known."""
        progress = self._progress
        unready = self._unready(self.terms.target, ready)
        progress.watch(now, bool(unready))
        if unready:
            progress.watched = 0.0
        breach = self._judge()
        if breach is not None:
            return self._change(now, "rolled_back", breach, ACTOR)
        if unready or not stored or progress.state == "paused":
            return None
        if not self.terms.compared(0):
            # Then nobody is left to compare with, and nobody to be mirrored from.
            compares = any(check.compares for guard in self._guards for check in guard.checks)
            if compares and progress.watched < self.terms.strategy.bake_s:
                return None
            if lack := self._lack(mirrored=True):
                return self._starve(now, lack)
        return self._enter(now, 0, f"{self.terms.names[0]} is ready")

    def _judge(self) -> str | None:
        """Feeds all tests; the first breach in words."""
        former = self._record()
        found = None
        for guard in self._guards:
            for check in guard.checks:
                check.update(self._new, self._former)
            found = found or guard.breach(self.terms.names, self._new, former)
        return found

    def _advance(self, now: float, ready: Collection[str]) -> Change | None:
        progress, strategy, names = self._progress, self.terms.strategy, self.terms.names
        step = f"step {self.terms.steps[progress.step]} %"
        answered = f"{names[0]} answered {self._answered:,}"
        if progress.silent > SILENT_S:
            reason = f"no ingress has reported for {progress.silent:.0f} s"
            return self._change(now, "paused", reason, ACTOR)
        if self._answered < strategy.min_samples:
            needed = f"of the {strategy.min_samples:,} requests that {step} needs"
            return self._starve(now, f"{answered} {needed}")
        if lack := self._lack():
            return self._starve(now, lack)
        baked = now - progress.since
        if baked < strategy.bake_s:
            return None
        held = f"{step} has held for {baked:.0f} s: {answered} requests"
        following = progress.step + 1
        if following == len(self.terms.steps):
            return self._change(now, "promoted", held, ACTOR)
        if self._unready(self.terms.weights(following), ready):
            return None
        return self._enter(now, following, held)

    def _lack(self, *, mirrored: bool = False) -> str | None:
        """What a guard has seen too little of to judge by, in words; None: all have enough.

        Requests are counted in each step, mirrored answers and outcomes in all.

        Args:
            mirrored: whether only mirrored answers can have come by now.
        """
        needed = self.terms.strategy.min_samples
        for guard in self._guards:
            seen = guard.seen(self._new)
            if seen < needed and (guard.mirrored or not mirrored):
                counted = f"{seen:,} of the {needed:,} {guard.unit}"
                return f"{self.terms.names[0]} has {counted} that the guard on {guard.title} needs"
        return None

    def _starve(self, now: float, lack: str) -> Change | None:
        """Waits for what is lacking, but not for ever."""
        progress, strategy = self._progress, self.terms.strategy
        if progress.watched <= strategy.patience * strategy.bake_s:
            return None
        return self._change(now, "paused", f"{lack}, in {progress.watched:.0f} s", ACTOR)

    def _enter(self, now: float, step: int, reason: str) -> Change:
        checks = [check for guard in self._guards for check in guard.checks]
        if step == 0:
            for check in checks:
                check.begin(self._baseline)
        if not self.terms.compared(step) and (step == 0 or self.terms.compared(step - 1)):
            record = self._record()
            for check in checks:
                check.freeze(record, self._new)
        before = self.weights
        self._progress.step = step
        self._progress.restart(now)
        self._progress.answered_from = self._new.requests - self._new.faults
        return self._change(now, "progressing", reason, ACTOR, before)

    def _retreat(self, now: float, ready: Collection[str], reason: str) -> Change | None:
        """Back to the origin, unless nobody is there."""
        if any(weight and name in ready for name, weight in self.terms.origin.items()):
            return self._change(now, "rolled_back", reason, ACTOR)
        if self._progress.state == "paused":
            return None
        stays = f"{reason}. Traffic stays, because no former version has a ready replica"
        return self._change(now, "paused", stays, ACTOR)

    def _change(
        self,
        now: float,
        state: RolloutState,
        reason: str,
        actor: str,
        before: Mapping[str, int] | None = None,
    ) -> Change:
        progress = self._progress
        before = before if before is not None else self.weights
        progress.state, progress.reason, progress.actor = state, reason, actor
        progress.changed_at = now
        after = self.weights
        weights = after if after != before else None
        return Change(state, progress.step, reason, actor, weights, self.evidence())
