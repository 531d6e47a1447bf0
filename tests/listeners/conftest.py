from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop
from fakes.listening import Listening


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """Sockets are tested on the loop that serves them."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    bench = Listening()
    yield bench
    await bench.close()
