"""ModelRouter: the authority for versions and traffic; compiles and publishes the route table.

It is never on the way of a request: each ingress long-polls it and chooses in its own process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ray import serve
from ray.serve._private.common import ReplicaState
from ray.serve.schema import ApplicationStatus, ServeStatus

from deployments.arguments import GatewayArguments, RouterSettings
from deployments.endpoints import LEASE_S, EndpointLeases
from deployments.naming import REPLICA, application_name
from deployments.process import set_up
from deployments.publication import Publication
from deployments.records import VERBS as RECORDS
from deployments.records import Records
from deployments.releases import Releases
from deployments.routes import Counts, RouteCompiler
from serve_app.domain.arms import IngressReport
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import Endpoint, RouteTable
from serve_app.domain.table_news import TableNews
from serve_app.errors import ServeAppError
from serve_app.store.releases import ReleaseStore

logger = logging.getLogger(__name__)

FACTS_TIMEOUT_S = 5.0
UNREST_S = 10.0
TICK_S = 1.0
"""How often releases may move by themselves."""
CALM_FACTOR = 5.0
"""Replicas are looked at so much more rarely when nothing has changed for `UNREST_S`."""


class ModelRouter:
    """Follows the replicas' state and the configured releases; one replica in the cluster."""

    def __init__(self, arguments: GatewayArguments) -> None:
        set_up(arguments.log, arguments.home, "router")
        self._poll_s = arguments.status_poll_s
        self._settings = RouterSettings()
        self._counts: Counts = {}
        self._proven: frozenset[str] = frozenset()
        self._facts: dict[VersionKey, Mapping[str, str]] = {}
        self._leases = EndpointLeases()
        self._compiler = RouteCompiler()
        self._releases = Releases(ReleaseStore(arguments.database), self._ready, self._stir)
        self._records = Records(arguments.database)
        self._published = Publication()
        self._changed = asyncio.Event()
        self._started = self._changed_at = time.monotonic()
        self._stirred = asyncio.Event()
        """Set when something has happened that Serve's status will show soon."""
        self._watcher: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes new models and desired releases in place (Serve's `user_config`)."""
        self._settings = RouterSettings.model_validate(user_config)
        self._releases.configure(self._settings.models)
        self._stirred.set()
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
            self._keeper = asyncio.create_task(self._keep_releases())

    async def poll(self, revision: int, timeout_s: float) -> TableNews | None:
        """Waits for a table newer than `revision`; None when there is none within `timeout_s`.

        A router that has just started has an empty table at first: nobody must hear of it.
        """
        if self._published.table.revision <= revision:
            changed = self._changed
            try:
                async with asyncio.timeout(timeout_s):
                    await changed.wait()
            except TimeoutError:
                return None
        return self._published.since(revision)

    async def announce(self, key: VersionKey, endpoint: Endpoint) -> None:
        """A replica listens on a direct channel; it says so again and again while it does."""
        if self._leases.announce(key, endpoint, time.monotonic()):
            self._stir()

    async def withdraw(self, replica: str) -> None:
        """A replica drains its direct channel."""
        if self._leases.withdraw(replica):
            self._stir()

    async def report(self, report: IngressReport) -> None:
        """Takes what an ingress has counted; a report that is repeated counts once."""
        self._releases.take(report)

    async def control(self, verb: str, *arguments: Any) -> Any:
        """The port `Control`, and what is recorded, for whoever has a handle."""
        if verb in RECORDS:
            return await RECORDS[verb](self._records, *arguments)
        return await _VERBS[verb](self._releases, *arguments)

    async def check_health(self) -> None:
        """Fails when the watcher has ended; a slow or absent controller is not a fault of ours."""
        if self._watcher is not None and self._watcher.done():
            raise RuntimeError("the watcher of replica states has ended")
        if self._keeper is not None and self._keeper.done():
            raise RuntimeError("the keeper of the releases has ended")

    async def _keep_releases(self) -> None:
        """Reads what was in force, then lets releases move once a second."""
        while True:
            try:
                if not self._releases.opened:
                    await self._releases.open()
                    self._stirred.set()
                elif self._published.table.revision:  # before that nobody knows who is ready
                    await self._releases.tick()
            except ServeAppError as error:
                logger.warning("the database is away: %s", error, extra={"action": "release"})
            except Exception:
                logger.exception("cannot keep the releases", extra={"action": "release"})
            await asyncio.sleep(TICK_S)

    def _ready(self, model: str) -> frozenset[str]:
        """The versions of a model that can answer: with a replica, or asleep and able to wake."""
        route = self._published.table.models.get(model)
        if route is None:
            return frozenset()
        return frozenset(name for name, each in route.versions.items() if each.answers)

    async def _watch(self) -> None:
        status: ServeStatus | None = None
        while True:
            self._stirred.clear()
            try:
                status = await asyncio.to_thread(serve.status)
                self._counts = running_replicas(status, self._counts)
                self._proven = proven(status, self._proven)
                complete = self._releases.opened and not building(status) and self._heard_of_all()
                if self._published.table.revision or complete:
                    await self._learn_facts(status)
                    self._compile()
            except Exception:
                logger.exception("cannot follow the replicas", extra={"action": "watch"})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), self._pause_s(status))

    def _heard_of_all(self) -> bool:
        """Whether every running replica has announced itself, or has had the time to.

        A router that has restarted would take all channels away with a table that lacks them.
        """
        running = sum(n for (_, deployment), n in self._counts.items() if deployment == REPLICA)
        announced = self._leases.current(time.monotonic()).values()
        return sum(map(len, announced)) >= running or time.monotonic() - self._started > LEASE_S

    def _pause_s(self, status: ServeStatus | None) -> float:
        """How long to wait with the next look: it costs the controller and us some milliseconds.

        A replica that comes or goes says so itself; one that dies is noticed by the ingresses.
        """
        if status is None or not settled(status):
            return self._poll_s
        quiet_s = time.monotonic() - self._changed_at
        return self._poll_s if quiet_s < UNREST_S else CALM_FACTOR * self._poll_s

    async def _learn_facts(self, status: ServeStatus) -> None:
        """Asks each version that has become ready once what it knows about itself."""
        running = {
            name
            for name, details in status.applications.items()
            if details.status == ApplicationStatus.RUNNING
        }
        ready = {
            key
            for name, model in self._settings.models.items()
            for version in model.versions
            if self._counts.get((application_name(key := VersionKey(name, version)), REPLICA))
        }
        # A version that went away may come back as another one, one that sleeps does not.
        self._facts = {
            key: facts
            for key, facts in self._facts.items()
            if key in ready or application_name(key) in running
        }
        await asyncio.gather(*[self._ask(key) for key in ready - self._facts.keys()])

    async def _ask(self, key: VersionKey) -> None:
        """Learns one version's facts; a version that does not answer holds up no other."""
        try:
            handle = await asyncio.to_thread(
                serve.get_deployment_handle, REPLICA, application_name(key)
            )
            async with asyncio.timeout(FACTS_TIMEOUT_S):
                self._facts[key] = await handle.describe.remote()
        except Exception:
            logger.exception("no facts", extra={"action": "describe", **key._asdict()})

    def _stir(self) -> None:
        self._changed_at = time.monotonic()
        self._stirred.set()
        if self._published.table.revision:
            self._compile()

    def _compile(self) -> None:
        endpoints = self._leases.current(time.monotonic())
        models = self._settings.models
        releases = {name: self._releases.release(name) for name in models}
        self._publish(
            self._compiler.compile(
                models, releases, self._counts, self._facts, endpoints, self._proven
            )
        )

    def _publish(self, table: RouteTable) -> None:
        # Milliseconds since the epoch keep revisions growing across restarts of this process.
        revision = max(self._published.table.revision + 1, time.time_ns() // 1_000_000)
        if not self._published.replace(table, revision):
            return
        logger.info("table published", extra={"action": "publish", "revision": revision})
        self._changed.set()
        self._changed = asyncio.Event()
        self._changed_at = time.monotonic()


_VERBS: Mapping[str, Callable[..., Awaitable[Any]]] = {
    "standings": Releases.standings,
    "release": Releases.live,
    "change": Releases.change,
    "revisions": Releases.revisions,
    "rollback": Releases.rollback,
    "rollouts": Releases.rollouts,
    "steer": Releases.steer,
    "record": Releases.record,
    "report": Releases.report,
    "disagreements": Releases.disagreements,
}


def building(status: ServeStatus) -> set[str]:
    """Applications whose new document Serve is still importing.

    For these seconds Serve lists none of their deployments, although the old ones go on serving.
    """
    return {
        name
        for name, details in status.applications.items()
        if details.status == ApplicationStatus.DEPLOYING and not details.deployments
    }


def settled(status: ServeStatus) -> bool:
    """Whether Serve is done with everything that it was asked for, and no replica starts."""
    return all(
        details.status == ApplicationStatus.RUNNING
        and not any(
            each.replica_states.get(ReplicaState.STARTING, 0)
            for each in details.deployments.values()
        )
        for details in status.applications.values()
    )


def proven(status: ServeStatus, before: frozenset[str]) -> frozenset[str]:
    """Applications whose replicas have been up and can come up again.

    Those that fail to start cannot: Serve goes on trying for a while, then gives up until somebody
    asks again.

    Args:
        status: what Serve says now.
        before: the last answer, in force for applications that Serve works on.
    """
    return frozenset(
        name
        for name, details in status.applications.items()
        if details.status == ApplicationStatus.RUNNING
        or (details.status == ApplicationStatus.DEPLOYING and name in before)
    )


def running_replicas(status: ServeStatus, before: Counts) -> Counts:
    """Replicas that are running, and so ready and warm, by application and deployment.

    Args:
        status: what Serve says now.
        before: the last counts; they stay in force for applications that Serve is `building`.
    """
    kept = building(status)
    return {key: count for key, count in before.items() if key[0] in kept} | {
        (application, deployment): overview.replica_states.get(ReplicaState.RUNNING, 0)
        for application, details in status.applications.items()
        for deployment, overview in details.deployments.items()
    }
