import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app.desk import PluginDesk
from gateway.wasm.config import WasmConfig
from gateway.wasm.plugins import PluginHost

PLUGINS = Path(__file__).parents[2] / "plugins"
HEARTBEAT = bytes.fromhex("7e000200000130410000000001737e")


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    made = PluginHost(WasmConfig(), [PLUGINS], None)
    made.load_all()
    yield made
    made.close()


async def test_what_the_framing_passes_over_is_counted(host: PluginHost) -> None:
    noise, flag, frame, after = await PluginDesk(host).try_decode(
        "jt808", [b"\x00", b"\x7e", HEARTBEAT, b"\x01\x02" + HEARTBEAT]
    )
    assert (noise.frames, noise.skipped) == ([], 1)
    assert flag.frames == []
    assert ([outcome.code for outcome in frame.frames], frame.skipped) == ([None], 0)
    assert ([outcome.code for outcome in after.frames], after.skipped) == ([None], 2)


async def test_the_loop_serves_others_while_many_frames_are_tried(host: PluginHost) -> None:
    trying = asyncio.get_running_loop().create_task(PluginDesk(host).try_decode("jt808", [HEARTBEAT * 3000]))
    turns = 0
    while not trying.done():
        await asyncio.sleep(0)
        turns += 1
    (tried,) = await trying
    assert len(tried.frames) == 3000
    assert turns >= 3000 // 256
