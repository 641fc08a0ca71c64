"""The contract once more, on the event loop of the product."""

from __future__ import annotations

import pytest

from tests.contract import test_gateway


@pytest.mark.asyncio(loop_factories=["uvloop"])
class TestDirectGateway(test_gateway.TestDirectGateway):
    pass
