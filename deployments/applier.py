"""An order of the admin API, carried out by a process of its own on the head node.

An apply replaces the ingress that was asked, and ModelRouter as well, so neither can carry it out.
docs/decisions/0022-applies-over-http.md has the reasons.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray._private.ray_constants import DASHBOARD_ADDRESS, KV_NAMESPACE_DASHBOARD
from ray.actor import ActorHandle
from ray.experimental.internal_kv import _internal_kv_get

from deployments.answer import public
from deployments.arguments import GatewayArguments
from deployments.process import set_up
from deployments.target import own_target
from serve_app.config.home import VARIABLE
from serve_app.domain.deployer import Accepted
from serve_app.errors import OperatorError

logger = logging.getLogger(__name__)

NAMESPACE = "serve-app"
"""Ray's namespace for these actors."""
HEAD_NODE = {"node:__internal_head__": 0.001}
"""The resource by which Ray places something on the head node, where the home is."""
UNASKED_S = 60.0
"""An answer that nobody asks for is kept so long."""
FAREWELL_S = 1.0
"""And so long once it has been asked for, so that it arrives."""


class Applier:
    """One order. It begins when the actor is made, and the actor ends itself when it is done.

    Ray makes a detached actor even if whoever wanted it is gone by then. So the order is an
    argument of the constructor: an actor that waited for a call might wait for ever.
    """

    def __init__(self, arguments: GatewayArguments, verb: str, *order: Any) -> None:
        os.environ[VARIABLE] = arguments.home
        self._arguments = arguments
        self._answer: Future[Accepted] = Future()
        self._asked = threading.Event()
        threading.Thread(target=self._run, args=(verb, order), daemon=True).start()

    def answer(self) -> Accepted:
        """What the order comes to, once that is known.

        Raises:
            ServeAppError: see `serve_app.domain.deployer.Deployer`.
        """
        try:
            return self._answer.result()
        finally:
            self._asked.set()

    def _run(self, verb: str, order: tuple[Any, ...]) -> None:
        try:
            self._carry_out(verb, order)
        except BaseException as error:
            if not isinstance(error, OperatorError):  # those are told, or recorded
                set_up(self._arguments.log, self._arguments.home, verb)
                logger.error("%s failed", verb, extra={"action": verb}, exc_info=error)
            if not self._answer.done():
                self._answer.set_exception(public(error))
        self._asked.wait(UNASKED_S)
        time.sleep(FAREWELL_S)
        _end()

    def _carry_out(self, verb: str, order: tuple[Any, ...]) -> None:
        # An ingress imports this module too, and has no use for Hydra and what else that needs.
        from deployments.orders import VERBS, Site

        home = Path(self._arguments.home)
        site = Site(home, own_target(_dashboard(), home), self._arguments.database)
        VERBS[verb](site, self._answer.set_result, *order)


_ACTOR: Any = ray.remote(num_cpus=0, resources=HEAD_NODE)(Applier)


def _dashboard() -> str:
    """Where this cluster's API is, by Ray's own word."""
    address = _internal_kv_get(DASHBOARD_ADDRESS, namespace=KV_NAMESPACE_DASHBOARD)
    return f"http://{address.decode()}"


def _end() -> None:
    ray.kill(ray.get_runtime_context().current_actor)


def launch(arguments: GatewayArguments, verb: str, *order: Any) -> ActorHandle[Any]:
    """Gives an order to a new actor, which nobody has to look after.

    Args:
        arguments: of the gateway that runs.
        verb: of `deployments.orders.VERBS`.
        order: its arguments.
    """
    name = f"{verb}-{uuid4().hex}"
    kind = _ACTOR.options(name=name, namespace=NAMESPACE, lifetime="detached")
    actor: ActorHandle[Any] = kind.remote(arguments, verb, *order)
    return actor
