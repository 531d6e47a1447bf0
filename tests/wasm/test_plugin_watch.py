"""Folders and installed versions are followed while the gateway runs: what is half written is not touched."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.nursery import Nursery, counting, marks, vector

from gateway.core.errors import NotFound
from gateway.wasm.area import Decisions
from gateway.wasm.plugins import PluginHost
from gateway.wasm.versions import PluginSources, fingerprint


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.close()


async def polls(host: PluginHost, times: int = 2) -> None:
    for _ in range(times):
        await host.poll()


async def test_a_change_is_taken_when_it_is_seen_twice(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    nursery.put("meter", "1.1", counting("b"))
    await polls(host, 1)
    assert marks(host, "meter") == ["a"]
    await polls(host, 1)
    assert marks(host, "meter") == ["b"]
    assert host.status("meter").version == "1.1"


async def test_content_that_is_still_being_written_is_not_taken(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    whole = counting("b")
    for size in range(0, len(whole), 100):
        (folder / "meter.wasm").write_bytes(whole[:size])
        await polls(host, 1)
    assert host.status("meter").life.refusals == 0
    (folder / "meter.wasm").write_bytes(whole)
    await polls(host)
    assert marks(host, "meter") == ["b"]
    assert host.status("meter").life.refusals == 0


async def test_a_half_that_stays_is_refused_and_the_whole_is_taken_later(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    (folder / "meter.wasm").write_bytes(counting("b")[:200])
    await polls(host, 5)
    status = host.status("meter")
    assert (status.state, status.life.refusals) == ("running", 1)
    assert "not a module" in status.reason
    assert marks(host, "meter") == ["a"]
    (folder / "meter.wasm").write_bytes(counting("b"))
    await polls(host)
    assert marks(host, "meter") == ["b"]
    assert host.status("meter").reason == ""


async def test_a_new_text_beside_the_same_plugin_changes_nothing(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    codec = host.codec("meter")
    (folder / "notes.txt").write_text("nothing that matters")
    await polls(host, 3)
    assert host.codec("meter") is codec
    assert host.status("meter").life.swaps == 0


async def test_a_broken_manifest_keeps_the_plugin_and_says_why(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    (folder / "plugin.toml").write_text("id = ")
    await polls(host)
    assert "not valid TOML" in host.status("meter").reason
    assert marks(host, "meter") == ["a"]


async def test_a_new_folder_is_found_and_runs(nursery: Nursery) -> None:
    host = nursery.host()
    assert host.plugins() == []
    nursery.put("meter", "1.0", counting("a"))
    await polls(host)
    assert marks(host, "meter") == ["a"]
    assert nursery.told() == ["started"]


async def test_a_plugin_that_is_built_later_runs_then(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", None)
    host = nursery.host()
    assert host.status("meter").state == "not_built"
    (folder / "meter.wasm").write_bytes(counting("a"))
    await polls(host)
    assert marks(host, "meter") == ["a"]


async def test_a_folder_that_vanishes_leaves_its_plugin_running(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    shutil.rmtree(folder)
    await polls(host, 3)
    assert marks(host, "meter") == ["a"]
    assert "nothing of it lies ready any more" in host.status("meter").reason
    nursery.put("meter", "1.1", counting("b"))
    await polls(host)
    assert marks(host, "meter") == ["b"]


async def test_a_refused_plugin_whose_folder_vanishes_is_gone(nursery: Nursery) -> None:
    folder = nursery.put("meter", "1.0", counting("a"), vector("x"))
    host = nursery.host()
    assert host.status("meter").state == "refused"
    shutil.rmtree(folder)
    await polls(host)
    with pytest.raises(NotFound):
        host.status("meter")


async def test_what_another_process_decides_is_followed(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    host = nursery.host()
    nursery.install("meter", "2.0", counting("i"))
    await polls(host)
    assert marks(host, "meter") == ["f"]
    nursery.area.decide("meter", Decisions(active="2.0"))
    await polls(host)
    assert marks(host, "meter") == ["i"]
    nursery.area.decide("meter", Decisions(active="2.0", disabled=True))
    await polls(host)
    assert host.status("meter").state == "disabled"
    nursery.area.decide("meter", Decisions())
    await polls(host)
    assert marks(host, "meter") == ["f"]


async def test_a_change_that_comes_between_a_look_and_a_decision_is_not_lost(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    nursery.put("meter", "1.1", counting("b"))
    await polls(host, 1)
    await host.grant("meter", ["wasi"])
    nursery.put("meter", "1.2", counting("c"))
    await host.disable("meter")
    nursery.put("meter", "1.3", counting("d"))
    await host.enable("meter")
    await polls(host, 3)
    assert host.status("meter").version == "1.3"


async def test_a_folder_that_changed_while_a_shadow_was_begun_is_taken_all_the_same(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    nursery.install("meter", "0.9", counting("x"))
    host = nursery.host()
    nursery.put("meter", "1.1", counting("b"))
    await host.shadow("meter", "0.9", 1)
    await polls(host)
    assert marks(host, "meter") == ["b"]


async def test_a_refusal_that_is_looked_at_again_is_told_once(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    for text in ("one", "two", "three"):
        nursery.put("meter", "1.1", counting("b"), vector("x"))
        (nursery.root / "meter" / "notes.txt").write_text(text)
        await polls(host)
    assert nursery.told() == ["refused"]
    assert host.status("meter").life.refusals == 3


async def test_a_swap_tells_whether_the_framing_changed(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"), "[framing]\ntype = 'none'\n")
    host = nursery.host()
    nursery.put("meter", "1.1", counting("b"), "[framing]\ntype = 'none'\n")
    await polls(host)
    nursery.put("meter", "1.2", counting("c"), "[framing]\ntype = 'gap'\n")
    await polls(host)
    assert [notice.data["framing_changed"] for notice in nursery.notices] == [False, True]


async def test_watching_follows_by_itself(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    host._shelf.clock = _RealTime()  # type: ignore[assignment]
    nursery.put("meter", "1.1", counting("b"))
    watching = asyncio.ensure_future(host.watch(0.01))  # noqa: TID251 - a test's own
    async with asyncio.timeout(30):
        while host.status("meter").version != "1.1":  # noqa: ASYNC110 - the host tells nobody how far its look is
            await asyncio.sleep(0.01)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert marks(host, "meter") == ["b"]


class _RealTime:
    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        return 0


def test_a_fingerprint_sees_every_kind_of_change(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    seen = [fingerprint(tmp_path)]
    (tmp_path / "inner" / "a").write_text("1")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "inner" / "a").write_text("22")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "b").write_text("3")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "b").rename(tmp_path / "c")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "c").unlink()
    seen.append(fingerprint(tmp_path))
    (tmp_path / "inner" / "a").unlink()
    assert len(set(seen)) == 5  # the last removal gives what was before it
    assert fingerprint(tmp_path) == seen[0]
    assert fingerprint(tmp_path / "absent") == seen[0]


def test_what_is_preferred_follows_the_decisions(nursery: Nursery) -> None:
    nursery.put("meter", "1.0", counting("f"))
    nursery.install("meter", "1.0", counting("g"))
    nursery.install("meter", "2.0", counting("i"))
    sources = PluginSources([nursery.root], nursery.area)

    def preferred(**decisions: object) -> list[tuple[str, str]]:
        nursery.area.decide("meter", Decisions(**decisions))
        return [(found.version, found.source) for found in sources.survey("meter").preferred()]

    assert preferred() == [("1.0", "folder")]
    assert preferred(active="2.0") == [("2.0", "installed")]
    assert preferred(active="1.0") == [("1.0", "installed")]
    assert preferred(active="2.0", previous="1.0") == [("2.0", "installed"), ("1.0", "installed")]
    assert preferred(active="9.9", previous="9.8") == [("1.0", "folder")]
