"""The endpoints that replicas have announced to ModelRouter, each on a lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serve_app.domain.inference import VersionKey
from serve_app.domain.routing import Endpoint

ANNOUNCE_S = 2.0
"""How often a replica renews its lease; a router that has restarted hears of it by then."""
LEASE_S = 3 * ANNOUNCE_S

Endpoints = Mapping[VersionKey, tuple[Endpoint, ...]]


@dataclass(slots=True)
class EndpointLeases:
    """Who has announced what, and when; the times are arguments."""

    _leases: dict[str, tuple[float, VersionKey, Endpoint]] = field(default_factory=dict)
    """Replica -> when it last spoke, and what it said."""

    def announce(self, key: VersionKey, endpoint: Endpoint, now: float) -> bool:
        """Takes or renews a lease; True if that changes the table."""
        before = self._leases.get(endpoint.replica)
        self._leases[endpoint.replica] = (now, key, endpoint)
        return before is None or before[1:] != (key, endpoint)

    def withdraw(self, replica: str) -> bool:
        """Ends a lease; True if that changes the table."""
        return self._leases.pop(replica, None) is not None

    def current(self, now: float) -> Endpoints:
        """What is announced, in a stable order; leases that have run out are dropped."""
        self._leases = {
            replica: lease for replica, lease in self._leases.items() if now - lease[0] <= LEASE_S
        }
        found: dict[VersionKey, list[Endpoint]] = {}
        for replica in sorted(self._leases):
            _, key, endpoint = self._leases[replica]
            found.setdefault(key, []).append(endpoint)
        return {key: tuple(each) for key, each in found.items()}
