from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop
from fakes.api_fakes import ApiBench, api_bench


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """The API is tested on the loop that serves it."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def api() -> AsyncIterator[ApiBench]:
    async with api_bench() as bench:
        yield bench
