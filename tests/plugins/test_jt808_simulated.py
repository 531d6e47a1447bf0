"""The simulator and the plugin were written from the same standard, apart: they must understand each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from fakes.jt808_platform import Platform

from gateway.core.flow import Decoded
from gateway.framing.flag_escape import FlagEscapeFramer
from gateway.simulate import jt808_wire as wire
from gateway.simulate.jt808 import Options, run
from gateway.simulate.jt808_wire import Edition, Id, Received
from gateway.wasm.host import WasmCodec


class CodecPlatform(Platform):
    """Answers with the plugin alone, as the gateway does after its commit; `decoded` holds every item."""

    def __init__(self, edition: Edition, codec: WasmCodec) -> None:
        super().__init__(edition)
        self.decoded: list[Decoded] = []
        self._codec = codec
        for message_id in (Id.REGISTER, Id.AUTHENTICATE, Id.HEARTBEAT, Id.LOCATION, Id.PARAMETERS, Id.LOCATION_REPLY):
            self.replies[message_id] = self._answer
        self.commands: list[dict[str, Any]] = []

    def _answer(self, asked: Received) -> bytes | None:
        whole = wire.Header(asked.phone.hex(), self.edition).message(asked.message_id, asked.serial, asked.body)
        [item] = self._codec.decode_batch(FlagEscapeFramer(0x7E, 0x7D, {1: 0x7D, 2: 0x7E}, 4096).feed(whole))
        assert isinstance(item, Decoded)
        self.decoded.append(item)
        if not bytes(item.ack):
            return None
        request = msgspec.msgpack.decode(item.ack) | {"accepted": True, "credential": "code-77"}
        answer = self._codec.encode(msgspec.msgpack.encode(request))
        if item.kind == "report" and self.commands:
            command = self.commands.pop() | {"device": item.device}
            answer += self._codec.encode(msgspec.msgpack.encode(command))
        return answer

    def of_kind(self, kind: str) -> list[Decoded]:
        return [item for item in self.decoded if item.kind == kind]


@pytest.fixture(params=["2013", "2019"])
def platform(request: pytest.FixtureRequest, jt808: WasmCodec) -> CodecPlatform:
    return CodecPlatform(request.param, jt808)


async def test_a_whole_run_is_acknowledged_by_the_plugin(platform: CodecPlatform) -> None:
    async with platform:
        options = Options(
            port=platform.port, devices=3, rate=40, seconds=0.5, edition=platform.edition, heartbeat_s=0.2
        )
        result = await run(options)

    assert result.clean
    assert result.acknowledged == 60
    assert {item.device for item in platform.of_kind("register")} == {options.phone(index) for index in range(3)}
    assert {item.credential for item in platform.of_kind("authenticate")} == {"code-77"}
    for item in platform.of_kind("report"):
        values = item.points[0].values
        assert values["acc_on"] is True
        assert values["extras_well_formed"] is True
        assert {"mileage_km", "rssi", "satellites"} <= set(values)
        assert "extras_raw" not in values
        assert item.points[0].at is not None


@pytest.mark.parametrize(
    ("command", "args", "shown"),
    [
        ("query_parameters", {}, lambda value: value["parameters"] == {"0x0001": 60, "0x0055": 100}),
        ("query_parameters", {"ids": ["0x0055"]}, lambda value: value["parameters"] == {"0x0055": 100}),
        ("locate", {}, lambda value: value["location"]["positioned"]),
    ],
)
async def test_a_command_of_the_plugin_is_answered_and_the_answer_found(
    platform: CodecPlatform, command: str, args: dict[str, Any], shown: Callable[[dict[str, Any]], bool]
) -> None:
    platform.commands.append({"command": command, "args": args, "serial": 4711})
    async with platform:
        result = await run(Options(port=platform.port, devices=1, rate=20, seconds=0.3, edition=platform.edition))

    [reply] = platform.of_kind("reply")
    assert result.clean
    assert (reply.reply_to, reply.ok) == (4711, True)
    assert shown(msgspec.msgpack.decode(reply.value))
