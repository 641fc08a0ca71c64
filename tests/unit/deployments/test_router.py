"""The route table from configured models and what Serve says about replicas."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from ray.serve._private.common import (
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaState,
)
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatusOverview,
    ServeStatus,
)

from deployments.arguments import RouterSettings
from deployments.endpoints import EndpointLeases
from deployments.naming import GATEWAY, INGRESS, REPLICA
from deployments.publication import Publication
from deployments.releases import Releases
from deployments.router import ModelRouter, building, proven, running_replicas
from deployments.routes import Counts, RouteCompiler, compile_table
from serve_app.config.cluster import DatabaseConfig
from serve_app.config.load import load_config
from serve_app.config.model import ReplicasConfig
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import EMPTY_TABLE, Endpoint
from serve_app.store.releases import ReleaseStore

MODELS = load_config(["model=[digits]"]).models
FACTS = {VersionKey("digits", version): {"accuracy": "0.98"} for version in "123"}


def application(
    status: ApplicationStatus, running: int | None, starting: int = 0
) -> ApplicationStatusOverview:
    """An application with one deployment, or with none while Serve builds it."""
    deployment = DeploymentStatusOverview(
        status=DeploymentStatus.HEALTHY,
        status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
        replica_states={ReplicaState.RUNNING: running or 0, ReplicaState.STARTING: starting},
        message="",
    )
    return ApplicationStatusOverview(
        status=status,
        message="",
        last_deployed_time_s=0.0,
        deployments={} if running is None else {REPLICA: deployment},
    )


def test_only_running_replicas_count() -> None:
    status = ServeStatus(applications={"a": application(ApplicationStatus.RUNNING, 2)})
    assert running_replicas(status, {}) == {("a", REPLICA): 2}


def test_while_serve_builds_an_application_its_old_replicas_go_on_counting() -> None:
    status = ServeStatus(
        applications={
            "a": application(ApplicationStatus.DEPLOYING, None),
            "b": application(ApplicationStatus.RUNNING, 1),
        }
    )
    assert building(status) == {"a"}
    before = {("a", REPLICA): 2, ("b", REPLICA): 3, ("gone", REPLICA): 1}
    assert running_replicas(status, before) == {("a", REPLICA): 2, ("b", REPLICA): 1}


def test_a_removed_application_has_no_replicas() -> None:
    assert running_replicas(ServeStatus(), {("a", REPLICA): 2}) == {}


def test_the_table_holds_what_an_ingress_needs() -> None:
    counts: Counts = {("digits@1", REPLICA): 1, ("digits@2", REPLICA): 2, (GATEWAY, INGRESS): 2}
    table = compile_table(MODELS, counts, FACTS)
    digits = table.models["digits"]
    assert table.ingresses == 2
    assert {v: route.replicas for v, route in digits.versions.items()} == {"1": 1, "2": 2, "3": 0}
    assert digits.versions["2"].metadata["accuracy"] == "0.98"
    assert [(c.version, c.weight) for c in digits.release.candidates] == [("2", 100)]
    assert digits.batchable


def test_a_busy_version_that_has_not_said_what_it_is_gets_traffic_all_the_same() -> None:
    digits = compile_table(MODELS, {("digits@2", REPLICA): 1}, {}).models["digits"]
    assert digits.ready
    assert "accuracy" not in digits.versions["2"].metadata


def test_tables_can_be_compared_and_are_frozen() -> None:
    first, second = (compile_table(MODELS, {}, FACTS) for _ in range(2))
    assert first == second
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.revision = 5  # type: ignore[misc]


def test_a_version_that_may_sleep_wakes_once_it_has_been_up() -> None:
    version = MODELS["digits"].versions["2"]
    sleeper = version.model_copy(update={"replicas": ReplicasConfig(min=0)})
    model = MODELS["digits"].model_copy(update={"versions": {"1": version, "2": sleeper}})
    table = compile_table({"digits": model}, {}, {}, None, {"digits@1", "digits@2"})
    assert [route.asleep for route in table.models["digits"].versions.values()] == [False, True]
    table = compile_table({"digits": model}, {}, {}, None, ())
    assert not table.models["digits"].versions["2"].asleep


@pytest.mark.parametrize(
    ("status", "before", "expected"),
    [
        (ApplicationStatus.RUNNING, False, True),
        (ApplicationStatus.DEPLOYING, False, False),  # it may not load at all
        (ApplicationStatus.DEPLOYING, True, True),  # its next one is on its way
        (ApplicationStatus.UNHEALTHY, True, False),
        (ApplicationStatus.DEPLOY_FAILED, True, False),
        (ApplicationStatus.DELETING, True, False),
    ],
)
def test_who_has_been_up_and_can_come_up_again(
    status: ApplicationStatus, before: bool, expected: bool
) -> None:
    found = proven(
        ServeStatus(applications={"a": application(status, 0)}),
        frozenset({"a", "gone"} if before else ()),
    )
    assert found == ({"a"} if expected else set())


async def test_a_fresh_router_tells_nobody_of_its_empty_table() -> None:
    router = object.__new__(ModelRouter)
    router._published = Publication()
    router._changed = asyncio.Event()
    assert await router.poll(revision=7, timeout_s=0.01) is None
    waiting = asyncio.create_task(router.poll(revision=7, timeout_s=5.0))
    await asyncio.sleep(0)
    router._publish(compile_table(MODELS, {}, FACTS))
    table = await waiting
    assert table is not None
    assert table.revision > 7
    assert table.models


ENDPOINT = Endpoint("node", "/tmp/a.sock", "replica-a", 2)
KEY = VersionKey("digits", "2")


def running_router() -> ModelRouter:
    """A router that has published its first table; its watcher does not run."""
    router = object.__new__(ModelRouter)
    router._settings = RouterSettings(models=MODELS)
    router._counts, router._facts = {("digits@2", REPLICA): 1}, {}
    router._proven = frozenset()
    router._leases = EndpointLeases()
    router._compiler = RouteCompiler()
    store = ReleaseStore(DatabaseConfig(url="sqlite:////nowhere/state.db"))  # never opened
    router._releases = Releases(store, router._ready, router._stir)
    router._releases.configure(MODELS)
    router._published = Publication()
    router._changed, router._stirred = asyncio.Event(), asyncio.Event()
    router._poll_s, router._changed_at = 1.0, 0.0
    router._compile()
    return router


def endpoints(router: ModelRouter) -> tuple[Endpoint, ...]:
    return router._published.table.models["digits"].versions["2"].endpoints


async def test_an_announced_endpoint_is_published_at_once_and_taken_back_at_once() -> None:
    router = running_router()
    first = router._published.table.revision
    await router.announce(KEY, ENDPOINT)
    assert endpoints(router) == (ENDPOINT,)
    second = router._published.table.revision
    assert second > first
    await router.announce(KEY, ENDPOINT)
    assert router._published.table.revision == second  # a renewal is no news
    await router.announce(KEY, ENDPOINT._replace(capacity=4))
    assert endpoints(router)[0].capacity == 4
    await router.withdraw("replica-a")
    assert endpoints(router) == ()
    await router.withdraw("replica-a")


async def test_an_endpoint_of_an_unknown_version_changes_nothing() -> None:
    router = running_router()
    before = router._published.table
    await router.announce(VersionKey("digits", "77"), ENDPOINT)
    assert router._published.table.models == before.models


async def test_a_router_without_a_table_remembers_endpoints_and_publishes_nothing() -> None:
    router = running_router()
    router._published = Publication()
    await router.announce(KEY, ENDPOINT)
    assert router._published.table is EMPTY_TABLE
    router._compile()
    assert endpoints(router) == (ENDPOINT,)


async def test_replicas_are_looked_at_rarely_only_while_nothing_changes() -> None:
    router = running_router()
    calm = ServeStatus(applications={"a": application(ApplicationStatus.RUNNING, 1)})
    moving = ServeStatus(applications={"a": application(ApplicationStatus.DEPLOYING, 1)})
    assert router._pause_s(calm) == 1.0  # the table is new
    router._changed_at -= 60.0
    assert router._pause_s(calm) == 5.0
    assert router._pause_s(moving) == 1.0
    waking = ServeStatus(applications={"a": application(ApplicationStatus.RUNNING, 0, starting=1)})
    assert router._pause_s(waking) == 1.0
    assert router._pause_s(None) == 1.0  # Serve did not answer
    await router.announce(KEY, ENDPOINT)
    assert router._stirred.is_set()
    assert router._pause_s(calm) == 1.0


def test_routes_of_models_for_which_nothing_changed_are_kept() -> None:
    models = {"one": MODELS["digits"], "two": MODELS["digits"]}
    releases = {name: model.release for name, model in models.items()}
    compiler = RouteCompiler()
    counts = {("one@1", REPLICA): 1}
    facts = {VersionKey("one", "1"): {"accuracy": "0.98"}}
    first = compiler.compile(models, releases, counts, facts, {})
    same = compiler.compile(dict(models), dict(releases), dict(counts), dict(facts), {})
    assert all(same.models[name] is first.models[name] for name in models)
    changes = [
        (models, {("one@1", REPLICA): 2}, facts, {}),
        (models, counts, {}, {}),
        (models, counts, facts, {VersionKey("one", "1"): (ENDPOINT,)}),
        ({**models, "one": MODELS["digits"].model_copy()}, counts, facts, {}),
    ]
    for change in changes:
        compiler.compile(models, releases, counts, facts, {})
        table = compiler.compile(change[0], releases, *change[1:])
        assert table == compile_table(*change)
        assert table.models["two"] is first.models["two"]
        assert table.models["one"] is not first.models["one"]
    moved = {**releases, "one": releases["one"].with_weights({"1": 100})}
    table = compiler.compile(models, moved, counts, facts, {})
    assert table.models["one"].release.serving == {"1"}
    assert table.models["two"] is first.models["two"]
    assert list(compiler.compile({"two": models["two"]}, releases, counts, facts, {}).models) == [
        "two"
    ]
