"""Brings a cluster to a config, all the way or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from deployments.home import locked
from deployments.live import document as running_document
from deployments.manifest import Document, same
from deployments.plan_view import show
from deployments.preflight import check_artifacts, make_examples
from deployments.readiness import POLL_S, settle, wait_until_ready
from deployments.serve_api import ServeApi
from deployments.survey import Survey, survey
from deployments.takeover import wait_for_takeover
from deployments.target import Target
from deployments.terminal import complain, heard_by, say, step
from serve_app.config.root import Config
from serve_app.errors import ClusterError, DeploymentConflict, PlanRefused
from serve_app.store.deployments import Deployment, DeploymentLog
from serve_app.store.lease import applying


def prepare(config: Config, home: Path, target: Target | None) -> None:
    """What is needed on this machine before anything is applied; a joined cluster has its own.

    Raises:
        ConfigError: a local artifact does not exist.
    """
    if target is None or target.node is not None:
        make_examples(config, home)
        check_artifacts(config, home)


@contextmanager
def alone(config: Config, home: Path) -> Iterator[DeploymentLog]:
    """The record of deployments, while nobody else applies in this home or with this database.

    Raises:
        DeploymentConflict: somebody does; says who, and since when.
        ClusterError: the database cannot be used.
    """
    log = DeploymentLog(config.database)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(home))
            stack.enter_context(applying(config.database))
        except DeploymentConflict as error:
            raise DeploymentConflict(f"{error}{_rival(log)}. Nothing was changed.") from error
        yield log


def apply(
    config: Config, home: Path, target: Target, log: DeploymentLog, actor: str, note: str = ""
) -> int | None:
    """Plans, shows the plan and carries it out; call it inside `alone`.

    Args:
        config: what the cluster shall run.
        home: the folder for state and caches.
        target: the cluster.
        log: where it is recorded.
        actor: who does it.
        note: why, for the record.

    Returns:
        The revision under which it is recorded; None if there was nothing to do.

    Raises:
        DeploymentConflict: somebody else has changed the cluster; theirs stays.
        PlanRefused: nothing was changed.
        ClusterError: it failed; what ran before runs again.
    """
    found, revision = accept(config, home, target, log, actor, note)
    if revision is not None:
        carry_out(config, target, log, found, revision, note)
        return revision
    with target.api() as api:
        wait_until_ready(api, config, found.after)
        wait_for_takeover(api, config)
    return None


def accept(
    config: Config, home: Path, target: Target, log: DeploymentLog, actor: str, note: str
) -> tuple[Survey, int | None]:
    """The first half of `apply`: plans, and records what is to be carried out.

    Returns:
        What was found, and the revision; None if there is nothing to do.
    """
    with target.api() as api:
        found = survey(api, config, home, target)
    _close_orphans(log, found.before)
    if not found.plan.fresh:
        show(found.plan)
    if found.plan.refusals:
        raise PlanRefused("\n".join([*found.plan.refusals, "Nothing was changed."]))
    if not found.plan.changes:
        return found, None
    return found, log.record(actor, config, found.after, note)


def carry_out(
    config: Config, target: Target, log: DeploymentLog, found: Survey, revision: int, note: str
) -> None:
    """The second half of `apply`: sends the document, waits, watches; undoes it if that fails."""
    with target.api() as api, heard_by(_scribe(log, revision)):
        try:
            _replace(api, config, found)
        except BaseException as error:
            if not isinstance(error, DeploymentConflict):
                _undo(api, found, config)
            with suppress(ClusterError):  # must not hide the cause
                log.finish(revision, "failed", _reason(note, str(error) or type(error).__name__))
            raise
        _record_success(log, revision, note)


def _replace(api: ServeApi, config: Config, found: Survey) -> None:
    # Serve replaces whatever there is: the plan must still be about that.
    now = running_document(api.details())
    if not _equal(now, found.before):
        raise DeploymentConflict(
            "the cluster has been changed since this plan was made. Nothing was changed: plan again"
        )
    ignored = [label for label in found.sick if label not in found.plan.touched]
    if ignored:
        say(f"Not ready before and not changed, so not waited for: {', '.join(ignored)}")
    shown, renewed = found.plan.touched, found.plan.renewed
    for document in found.stages:
        api.put(document)
        wait_until_ready(api, config, document, shown, ignored)
        if not found.plan.fresh:
            settle(api, config, document, renewed)
        shown = renewed = frozenset()  # what is left to do is to move traffic
    wait_for_takeover(api, config)


def _undo(api: ServeApi, found: Survey, config: Config) -> None:
    """Puts back what was there before; says so when that fails, for the cause matters more."""
    timeout_s = config.cluster.ready_timeout_s
    try:
        now = running_document(api.details())
        if _equal(now, found.before):
            return
        if now is not None and not any(same(now, each) for each in found.stages):
            say("Another apply has replaced this deployment: that one counts.")
        elif found.before is None:
            with step("Removing what was deployed"):
                remove(api, timeout_s)
        else:
            with step("Putting the former deployment back"):
                back = restore(api, found.before, found.healthy, timeout_s)
            say("The former deployment serves." if back else "The former deployment is NOT ready.")
    except ClusterError as error:
        complain(f"The former deployment could not be put back: {error}")


def remove(api: ServeApi, timeout_s: float) -> None:
    """Removes all applications and waits until their replicas have drained."""
    deadline = time.monotonic() + timeout_s
    api.delete(timeout_s)
    while api.details().get("applications"):
        if time.monotonic() > deadline:
            raise ClusterError(f"applications still drain after {timeout_s:.0f} s")
        time.sleep(POLL_S)


def restore(api: ServeApi, document: Document, healthy: Collection[str], timeout_s: float) -> bool:
    """Puts the last good document back; True when the applications that ran do so again."""
    api.put(document)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        applications = api.details().get("applications", {})
        if all(applications.get(name, {}).get("status") == "RUNNING" for name in healthy):
            return True
        time.sleep(POLL_S)
    return False


def _equal(first: Document | None, second: Document | None) -> bool:
    if first is None or second is None:
        return first is second
    return same(first, second)


def _record_success(log: DeploymentLog, revision: int, note: str) -> None:
    """The cluster serves what was asked for: a database that went away must not undo that."""
    try:
        log.finish(revision, "applied", note)
    except ClusterError as error:
        complain(
            f"Warning: the new deployment serves, but revision {revision} is not recorded as "
            f"applied: {error}\nThe next apply makes up for it."
        )


def _close_orphans(log: DeploymentLog, running: Document | None) -> None:
    """Ends the records of commands that died, or lost the database, before they could.

    Only for whoever holds the lease: nobody else can be applying now.
    """
    for each in log.history():
        if each.outcome != "applying":
            continue
        with suppress(ClusterError):  # somebody else was quicker
            if running is not None and same(running, dict(each.document)):
                log.finish(each.revision, "applied", _reason(each.reason, "recorded later"))
            else:
                ended = _reason(each.reason, "its command ended without a result")
                log.finish(each.revision, "failed", ended)


def _scribe(log: DeploymentLog, revision: int) -> Callable[[str], None]:
    """Keeps what is said with the deployment, as long as the database takes it."""
    away = False

    def write(line: str) -> None:
        nonlocal away
        if away or not line.strip():
            return
        try:
            log.note(revision, line.strip())
        except ClusterError:  # no reason to wait for it with every line, or to stop
            away = True

    return write


def _rival(log: DeploymentLog) -> str:
    newest: Deployment | None = next(iter(log.history(1)), None)
    if newest is None or newest.outcome != "applying":
        return ""
    since = newest.created_at.astimezone().strftime("%H:%M:%S")
    return f": {newest.actor} has been applying revision {newest.revision} since {since}"


def _reason(note: str, ended: str) -> str:
    return f"{note}: {ended}" if note else ended
