"""The Gateway over direct channels, with another Gateway for whatever they cannot do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from time import monotonic

from serve_app.channel.connection import ChannelConnection
from serve_app.channel.frame import FrameError
from serve_app.channel.server import BEAT_S
from serve_app.domain.gateway import Gateway
from serve_app.domain.inference import BatchResult, InferenceBatch, VersionKey
from serve_app.domain.routing import Endpoint, VersionRoute
from serve_app.errors import Overloaded

logger = logging.getLogger(__name__)

SILENCE_S = 6 * BEAT_S
"""A replica that has not been heard for this long, heartbeats included, is taken for dead."""
_WATCH_S = BEAT_S / 2
_SLACK = 64
"""Calls beyond twice its capacity that a replica may have before more are refused."""
_FIRST_BACKOFF_S = 0.05
_LAST_BACKOFF_S = 2.0

Fallback = Callable[[VersionKey, str], None]
"""Told the version and why a batch of it did not take the channel."""


class DirectGateway:
    """Sends each batch over the channel of the least busy replica of this node.

    A batch takes the `fallback` when no channel of its version is usable, or when all are busy and
    the version has replicas that only the fallback reaches.

    Args:
        fallback: reaches every replica.
        node: the node that this ingress runs on; endpoints of other nodes are left out.
        observe: hears of each batch that takes the fallback.
    """

    def __init__(self, fallback: Gateway, node: str, observe: Fallback | None = None) -> None:
        self._fallback = fallback
        self._node = node
        self._observe = observe
        self._pools: dict[VersionKey, _Pool] = {}
        self._watcher: asyncio.Task[None] | None = None

    def follow(self, routes: Iterable[VersionRoute], ingresses: int) -> None:
        """Takes over the endpoints of a new route table.

        Connections to endpoints that are gone end when their calls are answered.

        Args:
            routes: all versions.
            ingresses: how many processes share the replicas.
        """
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        pools = dict(self._pools)
        self._pools = {}
        for route in routes:
            local = [each for each in route.endpoints if each.node == self._node]
            pool = pools.pop(route.key, None)
            if pool is None and not local:
                continue
            pool = self._pools[route.key] = pool or _Pool(route.key)
            pool.follow(local, elsewhere=route.replicas > len(local), ingresses=ingresses)
        for pool in pools.values():
            pool.follow((), elsewhere=False, ingresses=ingresses)

    async def call(self, key: VersionKey, batch: InferenceBatch, timeout_s: float) -> BatchResult:
        """See `serve_app.domain.gateway.Gateway`."""
        pool = self._pools.get(key)
        connection = pool.choose() if pool is not None else None
        if connection is not None:
            return await connection.call(batch, timeout_s)
        if self._observe is not None:
            self._observe(key, pool.doubt if pool is not None else "no_endpoint")
        return await self._fallback.call(key, batch, timeout_s)

    async def wake(self, key: VersionKey) -> None:
        """See `serve_app.domain.gateway.Gateway`."""
        pool = self._pools.get(key)
        if pool is None or not pool.connected:
            await self._fallback.wake(key)

    async def ready(self, timeout_s: float) -> None:
        """Waits until every endpoint has been tried once; for an ingress that starts."""
        links = [link for pool in self._pools.values() for link in pool.links.values()]
        waiting = [asyncio.ensure_future(link.tried.wait()) for link in links]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=timeout_s)
            for each in late:
                each.cancel()

    async def close(self) -> None:
        """Ends all connections; calls under way are lost."""
        tasks = [link.stop() for pool in self._pools.values() for link in pool.links.values()]
        self._pools = {}
        if self._watcher is not None:
            self._watcher.cancel()
            tasks.append(self._watcher)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Ends connections to replicas that have fallen silent, so that their calls are retried."""
        now = monotonic()
        while True:
            before = now
            await asyncio.sleep(_WATCH_S)
            now = monotonic()
            if now - before > SILENCE_S / 2:
                continue  # this process stood still: what the replicas said has not been read yet
            for key, pool in self._pools.items():
                for link in pool.links.values():
                    if link.end_if_silent(now):
                        extra = {"action": "channel", **key._asdict()}
                        logger.warning("a replica is silent", extra=extra)


class _Pool:
    """The channels of one version."""

    def __init__(self, key: VersionKey) -> None:
        self.key = key
        self.links: dict[tuple[str, str], _Link] = {}
        """By path and replica: a capacity may change while the connection stays."""
        self.doubt = "no_endpoint"
        """Why `choose` found nothing."""
        self._elsewhere = False
        self._ingresses = 1

    def follow(self, endpoints: Iterable[Endpoint], *, elsewhere: bool, ingresses: int) -> None:
        """Takes over a new set of endpoints.

        Args:
            endpoints: of this node.
            elsewhere: whether there are replicas without one of them.
            ingresses: how many processes share them.
        """
        self._elsewhere, self._ingresses = elsewhere, ingresses
        wanted = {(endpoint.path, endpoint.replica): endpoint for endpoint in endpoints}
        for key in self.links.keys() - wanted.keys():
            self.links.pop(key).retire()
        for key, endpoint in wanted.items():
            link = self.links.get(key)
            if link is None:
                self.links[key] = _Link(endpoint)
            else:
                link.endpoint = endpoint

    @property
    def connected(self) -> bool:
        """Whether any replica can be called."""
        connections = [link.connection for link in self.links.values()]
        return any(each is not None and each.usable for each in connections)

    def choose(self) -> ChannelConnection | None:
        """The usable connection with the fewest calls; None: take the fallback.

        Raises:
            Overloaded: every replica has more calls than it may, most of them given up: it hangs.
        """
        best: ChannelConnection | None = None
        doubt, capacity, ties = "no_endpoint", 0, 0
        for link in self.links.values():
            connection = link.connection
            if connection is None or not connection.usable:
                doubt = link.doubt
            elif best is None or connection.outstanding < best.outstanding:
                best, capacity, ties = connection, link.endpoint.capacity, 1
            elif connection.outstanding == best.outstanding:
                # By lot: all ingresses see the replicas in the same order.
                ties += 1
                if random.random() * ties < 1.0:
                    best, capacity = connection, link.endpoint.capacity
        if best is None:
            self.doubt = doubt
        # A share below one call is one call all the same.
        elif self._elsewhere and best.outstanding >= max(1, capacity // self._ingresses):
            self.doubt = "busy"
            return None
        elif best.outstanding >= 2 * capacity + _SLACK:
            raise Overloaded(f"all replicas of {self.key} are busy")
        return best


class _Link:
    """Keeps one endpoint connected as long as the route table has it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.connection: ChannelConnection | None = None
        self.doubt = "connect"
        """Why there is no connection."""
        self.tried = asyncio.Event()
        self.endpoint = endpoint
        self._task = asyncio.create_task(self._keep())

    def retire(self) -> None:
        """The endpoint is gone from the table: what is under way may end."""
        self._task.cancel()
        if self.connection is not None:
            self.connection.close()

    def end_if_silent(self, now: float) -> bool:
        """Ends the connection if nothing has been heard on it for too long."""
        connection = self.connection
        if connection is None or now - connection.heard <= SILENCE_S:
            return False
        self.doubt = "stuck"
        connection.abort()
        return True

    def stop(self) -> asyncio.Task[None]:
        """Ends at once."""
        self._task.cancel()
        if self.connection is not None:
            self.connection.abort()
        return self._task

    async def _keep(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            connection = ChannelConnection(self.endpoint)
            try:
                await connection.open()
                self.connection = connection
                self.doubt = "connect"
                self.tried.set()
                backoff_s = _FIRST_BACKOFF_S
                await connection.gone
                self.connection = None
            except Exception as error:  # whatever it is, it must not end the attempts
                if self.doubt != "stuck":  # which is why it does not greet
                    self.doubt = "protocol" if isinstance(error, FrameError) else "connect"
                logger.info("no channel: %r", error, extra={"action": "channel"})
            self.tried.set()
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
