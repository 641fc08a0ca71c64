"""Ingress: owns the HTTP, gRPC and metrics listeners, and follows the route table."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from pathlib import Path
from typing import Any

import ray
from ray.serve.handle import DeploymentHandle

from deployments.arguments import GatewayArguments
from deployments.arm_reports import ArmReports
from deployments.control import RouterControl
from deployments.deployer import ActorDeployer
from deployments.gateway import HandleGateway
from deployments.process import set_up, settle
from serve_app.channel.gateway import DirectGateway
from serve_app.dataplane import DataPlane
from serve_app.domain.routing import RouteTable
from serve_app.domain.table_news import TableNews
from serve_app.grpc.listener import GrpcListener
from serve_app.http.app import create_app
from serve_app.http.listener import HttpListener
from serve_app.telemetry.recorder import Recorder

logger = logging.getLogger(__name__)

FIRST_TABLE_S = 20.0
"""How long a new ingress waits for its first route table before it opens the ports all the same."""


LAST_REPORT_S = 1.0
"""How long the end of this process waits for its last report to arrive."""

CONNECT_S = 1.0
"""How long a new route table waits for connections to replicas that it names first."""


class Ingress:
    """One process of the data path. Several per node share the ports (SO_REUSEPORT)."""

    # Serve awaits an asynchronous constructor.
    async def __init__(self, arguments: GatewayArguments, router: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        self._arguments = arguments
        self._router = router
        set_up(arguments.log, arguments.home, "ingress")
        self._recorder = Recorder(
            arguments.metrics, arguments.log, Path(arguments.home) / "metrics"
        )
        self._handles = HandleGateway()
        self._channels: DirectGateway | None = None
        if arguments.transport == "auto":
            node = ray.get_runtime_context().get_node_id()
            self._channels = DirectGateway(self._handles, node, self._recorder.count_fallback)
        limits = arguments.ingress.limits
        gateway = self._channels or self._handles
        self._dataplane = DataPlane(gateway, limits, self._recorder.observe_batch)
        app = create_app(
            self._dataplane,
            arguments.http,
            limits,
            self._recorder,
            RouterControl(router),
            ActorDeployer(arguments, router),
        )
        self._http = HttpListener(app, arguments.http, infer=app.infer)
        self._metrics: HttpListener | None = None
        if arguments.metrics.enabled:
            self._metrics = HttpListener(
                self._recorder.scrape_app, arguments.metrics.listener(), "metrics"
            )
        self._grpc: GrpcListener | None = None
        if arguments.grpc.enabled:
            self._grpc = GrpcListener(self._dataplane, arguments.grpc, limits, self._recorder)
        self._recorder.watch(self._dataplane, lambda: self._http.open_connections)
        self._has_table = asyncio.Event()
        self._follower = asyncio.create_task(self._follow())
        self._reports = ArmReports(
            self._dataplane.arms, self._router.report.remote, self._recorder.count_report
        )
        self._reporter = asyncio.create_task(self._reports.run())
        # The port is shared: opened without a table, it would refuse what a sibling can answer.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_table.wait(), FIRST_TABLE_S)
        await self._recorder.start()
        if self._metrics is not None:
            await self._metrics.start()
        await self._http.start()
        if self._grpc is not None:
            await self._grpc.start()
        settle()

    async def _follow(self) -> None:
        """Keeps the data plane on the newest table; without the router, on the last one."""
        poll_s = self._arguments.ingress.table_poll_s
        backoff_s = 0.1
        while True:
            try:
                async with asyncio.timeout(poll_s + 5.0):
                    news: TableNews | None = await self._router.poll.remote(
                        self._dataplane.table.revision, poll_s
                    )
                if news is not None and news.revision > self._dataplane.table.revision:
                    await self._take(news.applied_to(self._dataplane.table))
                    self._has_table.set()
                backoff_s = 0.1
            except Exception:
                logger.warning("no route table", extra={"action": "follow"}, exc_info=True)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))
                backoff_s = min(backoff_s * 2, 5.0)

    async def _take(self, table: RouteTable) -> None:
        """Makes the ways to the replicas ready, then switches the data plane over."""
        routes = [route for model in table.models.values() for route in model.versions.values()]
        await self._handles.prepare(route.key for route in routes if route.answers)
        if self._channels is not None:
            self._channels.follow(routes, table.ingresses)
            await self._channels.ready(CONNECT_S)
        self._dataplane.update(table)
        self._handles.forget({route.key for route in routes})

    async def check_health(self) -> None:
        """Fails when the follower has ended or the listener is gone; asks nobody else."""
        if self._follower.done():
            raise RuntimeError("the follower of the route table has ended")
        if self._reporter.done():
            raise RuntimeError("the reporter of the arms has ended")
        if not self._http.listening:
            raise RuntimeError("the HTTP listener is closed")

    async def __del__(self) -> None:
        """Drains: Serve awaits this once before it stops the process, also on a half-built one."""
        follower: asyncio.Task[None] | None = getattr(self, "_follower", None)
        if follower is None:
            return
        timeout_s = self._arguments.ingress.drain_timeout_s
        drains = [self._http.drain(timeout_s)]
        if self._grpc is not None:
            drains.append(self._grpc.drain(timeout_s))
        if self._metrics is not None:
            drains.append(self._metrics.drain(timeout_s))
        for outcome in await asyncio.gather(*drains, return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.error("drain failed", extra={"action": "drain"}, exc_info=outcome)
        self._dataplane.draining = True
        follower.cancel()
        self._reporter.cancel()
        with contextlib.suppress(TimeoutError):  # the router may be gone as well
            await asyncio.wait_for(self._reports.report(), LAST_REPORT_S)
        if self._channels is not None:
            await self._channels.close()
        await self._recorder.close()
