"""What the admin API orders: the command line's plan, apply and rollback, on the head node.

Each takes a function that is told what the order comes to; what is said there has been recorded,
and is carried out after that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.apply import accept, alone, carry_out, prepare
from deployments.plan_view import as_json
from deployments.revisions import former, note_of, stored_config
from deployments.survey import preview
from deployments.target import Target
from serve_app.config.cluster import DatabaseConfig
from serve_app.config.load import load_config, read_config
from serve_app.config.root import Config
from serve_app.domain.control import Author
from serve_app.domain.deployer import Accepted, Wanted
from serve_app.errors import PlanRefused
from serve_app.store.deployments import DeploymentLog

Tell = Callable[[Accepted], None]


@dataclass(frozen=True, slots=True)
class Site:
    """Where orders are carried out."""

    home: Path
    target: Target
    database: DatabaseConfig
    """Of what runs."""


def plan(site: Site, tell: Tell, wanted: Wanted) -> None:
    """See `serve_app.domain.deployer.Deployer`; so are all others."""
    found = preview(_composed(wanted), site.home, site.target)
    tell(Accepted(revision=None, plan=as_json(found)))


def apply(site: Site, tell: Tell, wanted: Wanted, author: Author) -> None:
    """To the end, or back to what ran before."""
    config = _composed(wanted)
    with alone(config, site.home) as log:
        prepare(config, site.home, site.target)
        _carry_out(site, tell, log, config, author.actor, author.reason)


def rollback(site: Site, tell: Tell, revision: int | None, author: Author) -> None:
    """How the cluster is reached is what the newest deployment that was applied says of it."""
    newest = DeploymentLog(site.database).latest_applied()
    if newest is None:
        raise PlanRefused("Nothing that was deployed with this database has served.")
    today = stored_config(newest)
    with alone(today, site.home) as log:
        row, config = former(today, site.home, site.target, log, revision)
        _carry_out(site, tell, log, config, author.actor, note_of(row, author.reason))


VERBS: dict[str, Callable[..., None]] = {"plan": plan, "apply": apply, "rollback": rollback}


def _composed(wanted: Wanted) -> Config:
    if wanted.config is not None:
        return read_config(wanted.config)
    return load_config(wanted.overrides or ())


def _carry_out(
    site: Site, tell: Tell, log: DeploymentLog, config: Config, actor: str, note: str
) -> None:
    found, revision = accept(config, site.home, site.target, log, actor, note)
    tell(Accepted(revision=revision, plan=as_json(found.plan)))
    if revision is not None:
        carry_out(config, site.target, log, found, revision, note)
