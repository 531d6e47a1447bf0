"""Commands end in exactly one way, and everybody is told."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from fakes.traffic import FakeClock, FakeConnection

from gateway.core.errors import CodecError, Conflict, NotFound, Rejected
from gateway.core.flow import Commit
from gateway.core.scope import Scope, system_scope
from gateway.core.tasks import Supervisor
from gateway.things.commands import CommandConfig, CommandService
from gateway.things.model import Command, Device, Function, Product, ThingModel
from gateway.things.ports import Page, PageRequest
from gateway.things.sessions import Session, SessionRegistry

SCOPE = Scope("default", "alice", frozenset({"*"}))


class Rows:
    """Commands in a dict, as copies, like rows."""

    def __init__(self) -> None:
        self.rows: dict[str, Command] = {}
        self.statuses: list[str] = []

    async def save_command(self, scope: Scope, command: Command) -> None:
        self.rows[command.id] = msgspec.structs.replace(command)
        self.statuses.append(command.status)

    async def get_command(self, scope: Scope, command_id: str) -> Command:
        if command_id not in self.rows:
            raise NotFound("no such command")
        return self.rows[command_id]

    async def list_commands(self, scope: Scope, device_id: str, page: PageRequest) -> Page[Command]:
        items = [row for row in self.rows.values() if row.device_id == device_id]
        return Page(items, len(items), page.page, page.limit)

    async def open_commands(self) -> list[Command]:
        return [row for row in self.rows.values() if row.status in {"queued", "sent"}]


class Directory:
    def __init__(self, device: Device, product: Product) -> None:
        self._device, self._product = device, product

    def device(self, scope: Scope, device_id: str) -> Device:
        if device_id != self._device.id:
            raise NotFound(f"no device {device_id}")
        return self._device

    def product(self, scope: Scope, product_id: str) -> Product:
        return self._product


def encode(product: Product, request: dict[str, Any]) -> bytes:
    if request["args"].get("bad"):
        raise CodecError(7, "bad args")
    return f"{request['command']}#{request['serial']}".encode()


class Scene:
    def __init__(self, rows: Rows | None = None, config: CommandConfig | None = None) -> None:
        model = ThingModel(functions={"locate": Function()})
        self.product = Product(tenant_id="default", id="p", plugin_id="letters", model=model)
        self.device = Device(key=1, tenant_id="default", id="d1", product_id="p")
        self.clock = FakeClock()
        self.rows = rows or Rows()
        self.sessions = SessionRegistry(self.clock)
        self.connection = FakeConnection()
        self.supervisor = Supervisor(self.clock)
        self.service = CommandService(
            config or CommandConfig(),
            self.rows,
            Directory(self.device, self.product),
            self.sessions,
            encode,
            self.clock,
            self.supervisor,
        )

    def connect(self) -> None:
        session = Session(self.device, self.connection)
        self.sessions.bind(session, Commit())
        self.service.session_bound(session)

    def serial(self, number: int = -1) -> int:
        """Serial of a frame that was sent."""
        return int(self.connection.sent[number].partition(b"#")[2])

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_an_online_device_gets_the_command_at_once_and_its_answer_ends_it() -> None:
    scene = Scene()
    scene.connect()
    command = await scene.service.send(SCOPE, "d1", "locate", {})
    assert command.status == "sent"
    assert scene.rows.statuses == ["queued", "sent"], "durable before the bytes leave"
    assert scene.service.answered(scene.device, scene.serial(), {"lat": 1}, ok=True)
    ended = await scene.service.wait(command)
    await scene.settle()
    assert (ended.status, ended.result) == ("acknowledged", {"lat": 1})
    assert scene.rows.rows[command.id].status == "acknowledged"
    assert scene.rows.rows[command.id].requested_by == "alice"


async def test_a_command_for_an_offline_device_waits_until_it_connects() -> None:
    scene = Scene()
    command = await scene.service.send(SCOPE, "d1", "locate", {})
    assert command.status == "queued"
    scene.connect()
    await scene.settle()
    assert command.status == "sent"
    assert len(scene.connection.sent) == 1
    scene.service.close()


async def test_a_command_nobody_fetched_expires() -> None:
    scene = Scene()
    command = await scene.service.send(SCOPE, "d1", "locate", {}, timeout_s=0.01)
    ended = await scene.service.wait(command)
    assert ended.status == "expired"
    scene.connect()
    assert scene.connection.sent == []


async def test_a_command_without_an_answer_times_out_and_a_late_answer_changes_nothing() -> None:
    scene = Scene()
    scene.connect()
    command = await scene.service.send(SCOPE, "d1", "locate", {}, timeout_s=0.01)
    assert (await scene.service.wait(command)).status == "timeout"
    assert not scene.service.answered(scene.device, scene.serial(), None, ok=True)
    await scene.settle()
    assert scene.rows.rows[command.id].status == "timeout"


async def test_a_refusal_of_the_device_fails_the_command() -> None:
    scene = Scene()
    scene.connect()
    command = await scene.service.send(SCOPE, "d1", "locate", {})
    scene.service.answered(scene.device, scene.serial(), None, ok=False)
    assert (command.status, command.error) == ("failed", "the device refused")


async def test_an_answer_goes_to_the_command_of_its_serial() -> None:
    scene = Scene()
    scene.connect()
    first = await scene.service.send(SCOPE, "d1", "locate", {})
    second = await scene.service.send(SCOPE, "d1", "locate", {})
    scene.service.answered(scene.device, scene.serial(1), None, ok=True)
    assert (first.status, second.status) == ("sent", "acknowledged")
    scene.service.close()


@pytest.mark.parametrize(
    ("device", "name", "args", "timeout_s", "error"),
    [
        ("nobody", "locate", {}, 1, NotFound),
        ("d1", "explode", {}, 1, Rejected),
        ("d1", "locate", {"bad": True}, 1, Rejected),
        ("d1", "locate", {}, 0, Rejected),
        ("d1", "locate", {}, float("nan"), Rejected),
        ("d1", "locate", {}, 1e9, Rejected),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_it_is_stored(
    device: str, name: str, args: dict[str, Any], timeout_s: float, error: type[Exception]
) -> None:
    scene = Scene()
    with pytest.raises(error):
        await scene.service.send(SCOPE, device, name, args, timeout_s)
    assert scene.rows.rows == {}


async def test_a_disabled_device_takes_no_commands() -> None:
    scene = Scene()
    scene.device.enabled = False
    with pytest.raises(Conflict):
        await scene.service.send(SCOPE, "d1", "locate", {})


async def test_an_offline_device_does_not_gather_commands_for_ever() -> None:
    scene = Scene(config=CommandConfig(most_waiting=2))
    for _ in range(2):
        await scene.service.send(SCOPE, "d1", "locate", {})
    with pytest.raises(Conflict):
        await scene.service.send(SCOPE, "d1", "locate", {})
    scene.service.close()


async def test_after_a_restart_sent_commands_time_out_and_waiting_ones_go_on_waiting() -> None:
    before = Scene()
    waiting = await before.service.send(SCOPE, "d1", "locate", {}, timeout_s=60)
    late = await before.service.send(SCOPE, "d1", "locate", {}, timeout_s=1)
    before.service.close()
    sent = msgspec.structs.replace(waiting, id="sent", status="sent")
    await before.rows.save_command(system_scope(), sent)
    after = Scene(before.rows)
    after.clock.advance(5)
    await after.service.load()
    await after.settle()
    assert after.rows.rows["sent"].status == "timeout"
    assert after.rows.rows[late.id].status == "expired"
    after.connect()
    await after.settle()
    assert len(after.connection.sent) == 1
    after.service.close()


async def test_after_a_reconnect_an_answer_does_not_meet_the_command_before() -> None:
    scene = Scene()
    scene.connect()
    first = await scene.service.send(SCOPE, "d1", "locate", {})
    scene.connect()
    second = await scene.service.send(SCOPE, "d1", "locate", {})
    scene.service.answered(scene.device, scene.serial(), None, ok=True)
    assert (first.status, second.status) == ("sent", "acknowledged")
    scene.service.close()


async def test_serials_go_round_without_zero() -> None:
    scene = Scene(config=CommandConfig(most_waiting=10))
    scene.connect()
    await scene.service.send(SCOPE, "d1", "locate", {})
    scene.service._serials["default", "d1"] = 0xFFFE
    for _ in range(3):
        await scene.service.send(SCOPE, "d1", "locate", {})
    assert [scene.serial(number) for number in (1, 2, 3)] == [0xFFFF, 1, 2]
    scene.service.close()
