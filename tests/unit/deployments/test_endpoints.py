from __future__ import annotations

from deployments.endpoints import ANNOUNCE_S, LEASE_S, EndpointLeases
from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import Endpoint

ONE, TWO = VersionKey("echo", "1"), VersionKey("echo", "2")


def endpoint(replica: str, capacity: int = 2) -> Endpoint:
    return Endpoint("node", f"/tmp/{replica}.sock", replica, capacity)


def test_only_what_is_new_changes_the_table() -> None:
    leases = EndpointLeases()
    assert leases.announce(ONE, endpoint("a"), 0.0)
    assert not leases.announce(ONE, endpoint("a"), 1.0)
    assert leases.announce(ONE, endpoint("a", capacity=4), 2.0)
    assert leases.announce(TWO, endpoint("a", capacity=4), 3.0)
    assert leases.current(3.0) == {TWO: (endpoint("a", capacity=4),)}


def test_replicas_stand_with_their_version_in_a_stable_order() -> None:
    leases = EndpointLeases()
    for name in "cab":
        leases.announce(ONE, endpoint(name), 0.0)
    leases.announce(TWO, endpoint("d"), 0.0)
    assert leases.current(0.0) == {
        ONE: (endpoint("a"), endpoint("b"), endpoint("c")),
        TWO: (endpoint("d"),),
    }


def test_a_replica_that_is_withdrawn_is_gone_at_once() -> None:
    leases = EndpointLeases()
    leases.announce(ONE, endpoint("a"), 0.0)
    assert leases.withdraw("a")
    assert not leases.withdraw("a")
    assert leases.current(0.0) == {}


def test_a_lease_runs_out_unless_it_is_renewed() -> None:
    leases = EndpointLeases()
    leases.announce(ONE, endpoint("a"), 0.0)
    leases.announce(ONE, endpoint("b"), 0.0)
    leases.announce(ONE, endpoint("a"), ANNOUNCE_S)
    assert leases.current(LEASE_S) == {ONE: (endpoint("a"), endpoint("b"))}
    assert leases.current(LEASE_S + 0.1) == {ONE: (endpoint("a"),)}
    assert leases.current(LEASE_S + ANNOUNCE_S + 0.1) == {}
    assert leases.announce(ONE, endpoint("b"), 99.0)  # it is new again


def test_a_lease_outlives_two_lost_announcements() -> None:
    assert LEASE_S > 2 * ANNOUNCE_S
