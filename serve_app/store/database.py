"""The database of a server: asynchronous, pooled, and never waited for without an end.

Queries are plain functions of a connection, whichever engine it comes from: here they run over the
asynchronous drivers, on the command line over the synchronous ones.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from serve_app.config.cluster import DatabaseConfig
from serve_app.errors import ClusterError, StoreUnavailable
from serve_app.store.engine import (
    READ_ONLY,
    address,
    describe,
    keep_rules,
    make_folder,
    options,
    sqlite_file,
    translated,
)
from serve_app.store.schema import move

logger = logging.getLogger(__name__)

T = TypeVar("T")

RECYCLE_S = 1800
"""A connection of this age is replaced: firewalls forget those that are older than they expect."""
GRACE_S = 1.0
"""How long a transaction that took too long may take to clean up."""
MIGRATION_TIMEOUT_S = 60.0


class Database:
    """Runs transactions; one per process and event loop. Opens nothing before the first one.

    The schema is brought up to date before the first transaction, so that a server may start
    while its database is away.
    """

    def __init__(self, database: DatabaseConfig) -> None:
        """Checks the configuration.

        Raises:
            ConfigError: the URL is malformed or not supported, or the password is not set.
        """
        self._timeout_s = database.timeout_s
        self._engine = _engine(database)
        self._migration: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._given_up: set[asyncio.Task[Any]] = set()
        """Those that nobody waits for any more: what they have done is not committed."""
        self._failure = ""
        self._file = sqlite_file(self._engine.sync_engine)
        # SQLite ends by itself when it has waited for the lock long enough. To cancel it is no use:
        # its thread works on, and aiosqlite may wait for that thread when it has ended already.
        self._cancels = self._file is None
        if self._file is not None:
            event.listen(self._engine.sync_engine, "connect", self._remember_file)
            event.listen(self._engine.sync_engine, "checkout", self._compare_file)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs queries that write nothing, in one transaction.

        Raises:
            StoreUnavailable: the database cannot do it, or not in time.
        """
        return await self._run(work, read_only=True)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs statements in one transaction: committed at the end, rolled back on any error.

        Raises:
            StoreUnavailable: see `read`. If it was just being committed, it may have been made
                nevertheless.
        """
        return await self._run(work, read_only=False)

    async def close(self) -> None:
        """Ends what is under way, closes all connections; one that hangs is left behind."""
        running = set(self._running)
        if self._migration is not None:
            running.add(self._migration)
        if self._cancels:
            for task in running:
                task.cancel()
        if running:
            await asyncio.wait(running, timeout=self._timeout_s)
        await asyncio.wait({asyncio.create_task(self._engine.dispose())}, timeout=GRACE_S)

    async def _run(self, work: Callable[[Connection], T], *, read_only: bool) -> T:
        try:
            result = await self._bounded(self._attempt(work, read_only), self._timeout_s)
        except ClusterError as error:
            self._note(str(error))
            raise StoreUnavailable(str(error)) from error
        self._note("")
        return result

    async def _attempt(self, work: Callable[[Connection], T], read_only: bool) -> T:
        if self._migration is None or _failed(self._migration):
            self._migration = asyncio.create_task(self._migrate())
        # Whoever gives up on it does not end it for the others.
        await asyncio.shield(self._migration)
        return await self._transact(work, read_only)

    async def _migrate(self) -> None:
        make_folder(self._engine.sync_engine)
        upgrade = self._transact(lambda connection: move(connection, "head"), read_only=False)
        await self._bounded(upgrade, MIGRATION_TIMEOUT_S)

    async def _transact(self, work: Callable[[Connection], T], read_only: bool) -> T:
        with translated(self._engine.sync_engine):
            async with self._engine.connect() as connection:
                await connection.execution_options(**{READ_ONLY: read_only})
                async with connection.begin():
                    result = await connection.run_sync(work)
                    if asyncio.current_task() in self._given_up:
                        raise ClusterError(f"{describe(self._engine.sync_engine)}: too late")
                    return result

    async def _bounded(self, operation: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Waits for an operation so long; one that does not end by then is left behind.

        It keeps its connection until it ends, so that at most a pool full of them can be left.
        """
        task = asyncio.create_task(operation)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(self._given_up.discard)
        try:
            await asyncio.wait({task}, timeout=timeout_s)
            if not task.done() and self._cancels:
                task.cancel()
                await asyncio.wait({task}, timeout=GRACE_S)
        except asyncio.CancelledError:
            self._give_up(task)
            if self._cancels:
                task.cancel()
            raise
        if not task.done() or task.cancelled():
            self._give_up(task)
            where = describe(self._engine.sync_engine)
            raise ClusterError(f"{where}: no answer within {timeout_s:g} s")
        return task.result()

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        if not task.done():
            self._given_up.add(task)
        task.add_done_callback(_forget)

    def _note(self, failure: str) -> None:
        """Logs when the database goes away, for another reason, and when it is back."""
        if failure == self._failure:
            return
        self._failure = failure
        if failure:
            logger.warning("cannot use the %s", failure, extra={"action": "store"})
        else:
            logger.info("the database is back", extra={"action": "store"})

    def _remember_file(self, _connection: object, record: ConnectionPoolEntry) -> None:
        record.info["file"] = self._identity()

    def _compare_file(
        self, _connection: object, record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        """Opens the file anew when another one has taken its place, such as a restored backup."""
        if record.info["file"] != self._identity():
            self._migration = None
            raise InvalidatePoolError("the file is another one")

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._file or "")
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _engine(database: DatabaseConfig) -> AsyncEngine:
    url = address(database)
    if url.get_backend_name() == "sqlite":
        url = url.set(drivername="sqlite+aiosqlite")
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=database.pool_size,
        max_overflow=0,
        pool_timeout=database.timeout_s,
        pool_recycle=RECYCLE_S,
        # A server that has restarted is noticed before a transaction begins.
        pool_pre_ping=True,
        **options(url),
    )
    keep_rules(engine.sync_engine)
    return engine


def _forget(task: asyncio.Task[Any]) -> None:
    """Takes note of an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
