"""Rollouts and experiments without a cluster: what is decided, never how it is carried out.

Pure: no I/O, no tasks; times are arguments, in seconds since the epoch. What must outlive its owner
becomes JSON and comes back from it. Why it decides as it does:
docs/decisions/0018-rollouts-that-judge-themselves.md.

A rollout, as its owner sees it::

    machine = RolloutMachine("digits", Terms(origin=..., target=..., strategy=...), now)
    machine.observe(report)                  # each report of an ingress: counts once
    machine.record(outcomes, through=17)     # those after machine.progress.through
    change = machine.tick(now, ready)        # each second
    change = machine.steer("pause", author, now, ready)
    machine = RolloutMachine.from_state(machine.to_state())

A `Change` is stored in one transaction with `to_state()`, and its `weights`, if any, become the
next revision. If that fails, the owner tries again with `machine.weights`: the machine has moved
already, and until then it is asked with `stored=False` whether it goes back. On `promoted` the
labels become `promoted_labels(terms, labels)`. Ingresses must count the arms of a model from the
moment its rollout is pending: that is the former version's record.

An experiment is `report(...)`: a JSON document, drawn by `svg` and `text`. A `BanditClock` says
when traffic follows the outcomes, and how.
"""

from serve_app.rollout.bandit import BanditClock, Draw
from serve_app.rollout.chart import svg, text
from serve_app.rollout.experiment import control_of, report
from serve_app.rollout.intake import Intake
from serve_app.rollout.machine import Change, RolloutMachine
from serve_app.rollout.terms import Terms, promoted_labels
from serve_app.rollout.weights import interpolate

__all__ = [
    "BanditClock",
    "Change",
    "Draw",
    "Intake",
    "RolloutMachine",
    "Terms",
    "control_of",
    "interpolate",
    "promoted_labels",
    "report",
    "svg",
    "text",
]
