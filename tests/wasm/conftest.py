from __future__ import annotations

from collections.abc import Iterator

import pytest
from guests_gw1 import MakeCodec, Sandbox


@pytest.fixture(params=["fast", "public"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(request.param)
    yield made
    made.close()


@pytest.fixture
def fast_sandbox() -> Iterator[Sandbox]:
    made = Sandbox("fast")
    yield made
    made.close()


@pytest.fixture
def make_codec(sandbox: Sandbox) -> MakeCodec:
    return sandbox.codec
