from __future__ import annotations

import numpy as np
import pytest

from serve_app.config.ingress import RequestLimits
from serve_app.dataplane import DataPlane
from serve_app.domain.inference import InferenceRequest
from serve_app.telemetry.trace import RequestTrace
from serve_app.testing import FakeGateway, model_route, route_table


@pytest.mark.parametrize(("pinned", "arm"), [(None, "1"), ("1", "")])
async def test_the_arm_is_what_the_release_assigned(pinned: str | None, arm: str) -> None:
    plane = DataPlane(FakeGateway(), RequestLimits())
    plane.update(route_table(model_route()))
    trace = RequestTrace("http", "id")
    inputs = {"x": np.zeros((1, 4), np.float32)}
    await plane.infer(InferenceRequest("echo", pinned, inputs, "id"), trace)
    assert (trace.version, trace.arm) == ("1", arm)
