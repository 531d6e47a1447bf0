"""A worker process is watched fairly: it dies for its own hangs, not for a busy gateway's."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio
from fakes.rules_fakes import message

from gateway.rules.config import RulesConfig, SandboxLimits
from gateway.rules.process import WorkerLost, WorkerProcess
from gateway.rules.wire import (
    Answer,
    Evaluate,
    Evaluated,
    Load,
    Loaded,
    Refused,
    Request,
    ServeRules,
    StartRun,
    encoder,
)

LIMITS = SandboxLimits(budget=10**12, cpu_ms=10**6, kill_after_ms=300)
SOURCE = b"""on.message{}(function(msg, state)
  if msg.values.x == 13 then while true do end end
  for i = 1, msg.values.x do local y = i end
  state.x = msg.values.x
end)"""


def evaluate(*values: int) -> Evaluate:
    return Evaluate(1, [((1, 1),)], [0] * len(values), [], [message(x=x) for x in values])


async def ask(worker: WorkerProcess, request: Request) -> Answer:
    return await worker.ask(encoder.encode(request), type(request))


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[WorkerProcess]:
    made = WorkerProcess("test", ServeRules(RulesConfig(limits=LIMITS)))
    await made.start()
    try:
        assert isinstance(await ask(made, Load(1, "r.lua", SOURCE)), Loaded)
        yield made
    finally:
        await made.stop()


async def test_a_hang_names_the_script_and_the_item(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerLost) as lost:
        await ask(worker, evaluate(1, 2, 13, 3))
    assert (lost.value.hung, lost.value.script, lost.value.item) == (True, 1, 2)
    assert not worker.running


async def test_a_long_batch_of_calls_that_end_is_no_hang(worker: WorkerProcess) -> None:
    answer = await ask(worker, evaluate(*[100_000] * 400))
    assert isinstance(answer, Evaluated)
    assert 0 < answer.done <= 400


async def test_a_gateway_that_was_busy_elsewhere_takes_no_answer_for_a_hang(worker: WorkerProcess) -> None:
    asking = asyncio.gather(ask(worker, evaluate(1, 2)))
    await asyncio.sleep(0)
    time.sleep(0.6)  # noqa: ASYNC251 - the loop stands still on purpose
    assert isinstance((await asking)[0], Evaluated)


async def test_a_worker_that_gets_no_cpu_is_given_more_time(worker: WorkerProcess) -> None:
    asking = asyncio.gather(ask(worker, evaluate(3_000_000)))
    await asyncio.sleep(0.01)
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    process.send_signal(signal.SIGCONT)
    assert isinstance((await asking)[0], Evaluated)


async def test_a_request_that_was_given_up_does_not_leave_its_answer_to_the_next(worker: WorkerProcess) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(worker, evaluate(1_000_000)), 0.001)
    assert not worker.running
    with pytest.raises(WorkerLost):
        await ask(worker, Load(2, "r.lua", SOURCE))
    await worker.start()
    assert isinstance(await ask(worker, Load(2, "r.lua", SOURCE)), Loaded)


async def test_a_worker_refuses_what_it_does_not_serve(worker: WorkerProcess) -> None:
    assert isinstance(await ask(worker, StartRun(1, "r", 1, b"\x80")), Refused)


async def test_a_worker_that_gets_nonsense_ends_and_is_reported(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerLost) as lost:
        await worker.ask(b"\xc1nonsense", Load)
    assert not lost.value.hung
    assert lost.value.script == 0


async def test_a_worker_has_nothing_of_the_gateways_environment(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_PASSWORD", "secret")
    await worker.start()
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    assert set(process.environ()) <= {"PYTHONPATH", "LC_CTYPE"}
    sockets = [descriptor for descriptor in os.listdir(f"/proc/{worker.pid}/fd") if int(descriptor) > 2]  # noqa: PTH208
    assert len(sockets) <= 3
    assert process.net_connections() == []


async def test_a_worker_whose_gateway_is_gone_ends_by_itself(worker: WorkerProcess) -> None:
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    link = worker._link
    assert link is not None
    assert link.transport is not None
    link.transport.abort()
    await asyncio.to_thread(process.wait, 10)
