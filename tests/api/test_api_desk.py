"""Plugins over the API with the real host and area behind the routes: packages of small real plugins come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.api_fakes import ApiBench, api_bench
from fakes.nursery import Nursery, counting
from fakes.packages import members, package, plugin_folder, zipped
from structlog.testing import capture_logs

from gateway.app.desk import PluginDesk, configured_users
from gateway.config import GatewayConfig
from gateway.core.errors import StorageFailed
from gateway.core.scope import system_scope
from gateway.things.catalog import Catalog
from gateway.things.model import Product, Property, ThingModel
from gateway.wasm import trial as trial_room
from gateway.wasm.area import Decisions, PluginArea
from gateway.wasm.codec import NOT_SHOWN, NOT_TRIED, TRAPPED
from gateway.wasm.config import WasmConfig
from gateway.wasm.package import archive
from gateway.wasm.plugins import PluginHost
from gateway.wasm.signing import Trust, make_key, sign
from gateway.wasm.stages import StageConfig
from gateway.workbench.build import build_plugin

PLUGINS = Path(__file__).parents[2] / "plugins"
HEARTBEAT = bytes.fromhex("7e000200000130410000000001737e")
ZIP = {"Content-Type": "application/zip"}
WASI = "[caps]\nwasi = true\n"
FAILING = '[[test]]\nname = "a wrong promise"\nframe = "00"\nitem = { device = "nobody" }\n'


class Room:
    """A host and its area, in folders of the test."""

    def __init__(self, root: Path, *dirs: Path, trust: Trust | None = None, wasm: WasmConfig | None = None) -> None:
        self.root = root
        self.area = PluginArea(root / "data" / "plugins", trust)
        self.host = PluginHost(wasm or WasmConfig(cache=False), dirs, None, area=self.area)
        self.host.load_all()

    def desk(self, catalog: Catalog) -> PluginDesk:
        return PluginDesk(self.host, self.area, catalog)

    def package(self, version: str = "1.0.0", **options: Any) -> bytes:
        return package(self.root / f"src-{version}", version, **options)

    def restarted(self, *dirs: Path) -> PluginHost:
        """Another host on the same files, as the next start makes it."""
        self.host.close()
        self.host = PluginHost(WasmConfig(cache=False), dirs, None, area=PluginArea(self.area._folder))
        self.host.load_all()
        return self.host


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.host.close()


@pytest.fixture
async def api(room: Room) -> AsyncIterator[ApiBench]:
    async with api_bench(plugins=room.desk) as bench:
        yield bench


async def upload(api: ApiBench, data: bytes, query: str = "", *, expect: int = 201) -> Any:
    return await api.call("POST", f"/plugins{query}", data=data, headers=ZIP, expect=expect)


async def marker(api: ApiBench, plugin_id: str = "meter") -> str:
    """Which version decodes."""
    answer = await api.call("POST", f"/plugins/{plugin_id}/try", json={"hex": ["00"]}, expect=200)
    return str(answer["data"]["items"][0]["frames"][0]["item"]["points"][0]["values"]["marker"])


async def plugin(api: ApiBench, plugin_id: str = "meter") -> Any:
    return (await api.call("GET", f"/plugins/{plugin_id}", expect=200))["data"]


async def product(api: ApiBench, plugin_id: str = "meter") -> None:
    model = ThingModel(properties={"temperature": Property(type="float", unit="Cel", maximum=20)})
    made = Product(tenant_id="default", id="meters", model=model, plugin_id=plugin_id)
    await api.catalog.create_product(system_scope(), made)


# Installing


async def test_an_uploaded_plugin_runs_at_once_and_after_a_restart(api: ApiBench, room: Room) -> None:
    data = (await upload(api, room.package(), expect=201))["data"]
    assert (data["id"], data["version"], data["state"], data["source"]) == ("meter", "1.0.0", "running", "installed")
    assert await marker(api) == "1.0.0"
    status = room.restarted().status("meter")
    assert (status.state, status.version) == ("running", "1.0.0")


async def test_a_new_version_takes_over_and_the_one_before_is_a_rollback_away(api: ApiBench, room: Room) -> None:
    await upload(api, room.package("1.0.0"))
    data = (await upload(api, room.package("1.1.0")))["data"]
    assert (data["version"], data["previous"]) == ("1.1.0", "1.0.0")
    assert [(one["version"], one["in_use"]) for one in data["versions"]] == [("1.0.0", False), ("1.1.0", True)]
    await api.call("POST", "/plugins/meter/rollback", expect=200)
    assert await marker(api) == "1.0.0"
    assert room.restarted().status("meter").version == "1.0.0"


async def test_the_same_package_twice_is_the_same(api: ApiBench, room: Room) -> None:
    for _ in range(2):
        assert (await upload(api, room.package(), expect=201))["data"]["state"] == "running"
    assert len((await plugin(api))["versions"]) == 1


async def test_another_package_of_a_version_is_a_conflict_and_the_first_goes_on(api: ApiBench, room: Room) -> None:
    await upload(api, room.package())
    answer = await upload(api, room.package(marker="other"), expect=409)
    assert "raise `version`" in answer["error"]
    assert await marker(api) == "1.0.0"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"manifest": FAILING}, "1 test vectors fail; a wrong promise"),
        ({"manifest": 'sha256 = "' + "0" * 64 + '"\n'}, "SHA-256"),
        ({"manifest": 'kind = "algo"\n'}, "gw_call"),
        ({"manifest": 'runtime = "ghost"\nscript = "x.js"\n', "files": {"x.js": b""}}, "ghost"),
        ({"manifest": "[framing]\ntype = 'nonsense'\n"}, "framing"),
        ({"files": {"meter.wasm": b"\0asm\x01\0\0\0"}}, "gw_abi|memory"),
        ({"files": {"meter.wasm": b"no module"}}, "module"),
    ],
)
async def test_a_version_that_fails_is_refused_with_the_reason_and_the_old_one_goes_on(
    api: ApiBench, room: Room, change: dict[str, Any], why: str
) -> None:
    await upload(api, room.package("1.0.0"))
    answer = await upload(api, room.package("1.1.0", **change), expect=422)
    assert any(part in answer["error"] for part in why.split("|")), answer["error"]
    assert await marker(api) == "1.0.0"
    data = await plugin(api)
    assert [one["version"] for one in data["versions"]] == ["1.0.0"]
    assert room.area.decisions("meter").active == "1.0.0"
    # The same version can be sent again once it is mended.
    assert (await upload(api, room.package("1.1.0", files={}), expect=201))["data"]["version"] == "1.1.0"


async def test_a_first_version_that_fails_leaves_nothing(api: ApiBench, room: Room) -> None:
    await upload(api, room.package(manifest=FAILING), expect=422)
    await api.call("GET", "/plugins/meter", expect=404)
    assert room.area.versions("meter") == []


async def test_junk_is_refused_and_says_how_packages_are_made(api: ApiBench, room: Room) -> None:
    for junk in (b"", b"junk", zipped({**members(room.package()), "../evil": b"x"})):
        answer = await upload(api, junk, expect=422)
        assert answer["code"] == "invalid"
    assert room.area.ids() == []


@pytest.mark.parametrize(
    "vectors",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'[{"name": "\xff\xfe"}]',
        b'[{"encode": {"a": 99999999999999999999}, "error": 5}]',
    ],
)
async def test_a_package_of_hostile_vectors_is_refused_leaves_nothing_and_the_gateway_starts_again(
    api: ApiBench, room: Room, vectors: bytes
) -> None:
    hostile = room.package(manifest='[[test]]\nvectors = "v.json"\n', files={"v.json": vectors})
    await upload(api, hostile, expect=422)
    assert room.area.versions("meter") == []
    assert [one.id for one in room.restarted().plugins()] == []


async def test_a_version_that_the_host_never_got_to_know_is_taken_away_too(
    api: ApiBench, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_plugin_id: str) -> None:
        raise StorageFailed("too many open files")

    monkeypatch.setattr(room.host, "discover", fails)
    await upload(api, room.package(), expect=503)
    assert room.area.versions("meter") == []


async def test_a_version_may_be_kept_and_run_later(api: ApiBench, room: Room) -> None:
    data = (await upload(api, room.package("1.0.0"), "?activate=false"))["data"]
    assert data["state"] == "disabled"
    assert room.restarted().status("meter").state == "disabled"


async def test_a_kept_version_does_not_take_over_by_itself(api: ApiBench, room: Room) -> None:
    await upload(api, room.package("1.0.0"))
    room.area.decide("meter", Decisions())  # as if nobody had ever chosen
    await upload(api, room.package("1.1.0"), "?activate=false")
    for _ in range(3):
        await room.host.poll()
    assert await marker(api) == "1.0.0"
    await api.call("POST", "/plugins/meter/activate", json={"version": "1.1.0"}, expect=200)
    assert await marker(api) == "1.1.0"


async def test_an_installed_version_goes_before_that_of_a_folder_until_it_is_removed(tmp_path: Path) -> None:
    folder = plugin_folder(tmp_path / "dirs", "1.0.0", marker="folder")
    room = Room(tmp_path, folder.parent)
    async with api_bench(plugins=room.desk) as api:
        await product(api)
        assert (await plugin(api))["source"] == "folder"
        await upload(api, room.package("1.1.0"))
        assert await marker(api) == "1.1.0"
        await api.call("DELETE", "/plugins/meter", expect=200)  # the folder's version serves the product
        assert await marker(api) == "folder"
        answer = await api.call("DELETE", "/plugins/meter", expect=409)
        assert "[plugins] dirs" in answer["error"]
    room.host.close()


# Signatures


async def test_only_signed_packages_are_taken_where_the_operator_says_so(tmp_path: Path) -> None:
    public = make_key(tmp_path / "acme.key")
    room = Room(tmp_path, trust=Trust({"acme": public}, require_signed=True))
    async with api_bench(plugins=room.desk) as api:
        plain = room.package()
        assert "not signed" in (await upload(api, plain, expect=422))["error"]
        files = members(plain)
        signature, _ = sign(files, tmp_path / "acme.key")
        data = (await upload(api, archive({**files, "plugin.sig": signature}), expect=201))["data"]
        assert data["signed_by"] == "acme"
        assert data["versions"][0]["trusted"] is True
        forged = archive({**files, "README.md": b"other", "plugin.sig": signature})
        assert "changed after it was signed" in (await upload(api, forged, expect=422))["error"]
    room.host.close()


async def test_no_key_shows_in_answers_logs_or_files(tmp_path: Path) -> None:
    public = make_key(tmp_path / "acme.key")
    secret = (tmp_path / "acme.key").read_text().splitlines()[1]
    with capture_logs() as logs:
        room = Room(tmp_path, trust=Trust({"acme": public}))
        async with api_bench(plugins=room.desk) as api:
            files = members(room.package())
            signature, _ = sign(files, tmp_path / "acme.key")
            await upload(api, archive({**files, "plugin.sig": signature}))
            shown = [await plugin(api), await api.call("GET", "/plugins", expect=200), await api.call("GET", "/audit")]
        room.host.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert secret not in str(shown) + str(logs)
    assert secret.encode() not in kept


# Grants


async def test_a_plugin_that_asks_for_more_waits_for_a_grant(api: ApiBench, room: Room) -> None:
    data = (await upload(api, room.package(manifest=WASI), expect=202))["data"]
    assert (data["state"], data["waiting"]) == ("waiting", {"version": "1.0.0", "missing": ["wasi"]})
    assert data["caps"] == {"asked": ["wasi"], "granted": [], "missing": ["wasi"]}
    await api.call("POST", "/plugins/meter/try", json={"hex": ["00"]}, expect=422)
    data = (await api.call("POST", "/plugins/meter/grants", json={"caps": ["wasi"]}, expect=200))["data"]
    assert (data["state"], data["waiting"], data["caps"]["missing"]) == ("running", None, [])
    assert room.restarted().status("meter").state == "running"


async def test_an_update_that_asks_for_more_waits_while_the_old_one_runs(api: ApiBench, room: Room) -> None:
    await upload(api, room.package("1.0.0"))
    data = (await upload(api, room.package("1.1.0", manifest=WASI), expect=202))["data"]
    assert (data["state"], data["version"], data["waiting"]["version"]) == ("running", "1.0.0", "1.1.0")
    assert await marker(api) == "1.0.0"
    await api.call("POST", "/plugins/meter/grants", json={"caps": ["wasi"]}, expect=200)
    assert await marker(api) == "1.1.0"


async def test_what_is_taken_back_is_not_used_any_more(api: ApiBench, room: Room) -> None:
    await upload(api, room.package(manifest=WASI), expect=202)
    await api.call("POST", "/plugins/meter/grants", json={"caps": ["wasi", "emit"]}, expect=200)
    data = (await api.call("DELETE", "/plugins/meter/grants", expect=200))["data"]
    assert (data["state"], data["caps"]["granted"]) == ("waiting", [])
    assert room.area.decisions("meter").granted is None


async def test_the_configurations_grants_are_changed_there(tmp_path: Path) -> None:
    room = Room(tmp_path, wasm=WasmConfig(cache=False, grants={"meter": ("wasi",)}))
    async with api_bench(plugins=room.desk) as api:
        await upload(api, room.package(manifest=WASI), expect=201)
        answer = await api.call("POST", "/plugins/meter/grants", json={"caps": ["log"]}, expect=409)
        assert "[wasm.grants]" in answer["error"]
        await api.call("DELETE", "/plugins/meter/grants", expect=409)
    room.host.close()


# Removing and disabling


async def test_a_plugin_in_use_is_not_removed(api: ApiBench, room: Room) -> None:
    await upload(api, room.package())
    await product(api)
    answer = await api.call("DELETE", "/plugins/meter", expect=409)
    assert "product meters" in answer["error"]
    assert (await plugin(api))["products"] == ["meters"]
    await api.catalog.delete_product(system_scope(), "meters")
    await api.call("DELETE", "/plugins/meter", expect=200)
    await api.call("GET", "/plugins/meter", expect=404)
    assert room.area.ids() == []


async def test_a_plugin_of_a_stage_or_channel_is_not_removed(room: Room) -> None:
    config = GatewayConfig(
        stages={"link": StageConfig(plugin="meter")}, notify={"ops": {"type": "plugin", "plugin": "meter"}, "log": {}}
    )

    def desk(catalog: Catalog) -> PluginDesk:
        return PluginDesk(room.host, room.area, catalog, configured_users(config))

    async with api_bench(plugins=desk) as api:
        await upload(api, room.package())
        answer = await api.call("DELETE", "/plugins/meter", expect=409)
        assert "stage link, notification channel ops" in answer["error"]
        assert room.area.versions("meter")


async def test_a_product_of_another_tenant_holds_a_plugin_without_being_named(api: ApiBench, room: Room) -> None:
    await upload(api, room.package())
    other = Product(tenant_id="other", id="secret-product", plugin_id="meter")
    await api.catalog.create_product(system_scope(tenant_id="other"), other)
    answer = await api.call("DELETE", "/plugins/meter", expect=409)
    assert "another tenant" in answer["error"]
    assert "secret-product" not in str(answer) + str(await plugin(api))


async def test_only_versions_that_are_not_in_use_are_removed(api: ApiBench, room: Room) -> None:
    for version in ("1.0.0", "1.1.0"):
        await upload(api, room.package(version))
    await api.call("DELETE", "/plugins/meter/versions/1.1.0", expect=409)
    await api.call("DELETE", "/plugins/meter/versions/1.0.0", expect=200)
    await api.call("DELETE", "/plugins/meter/versions/1.0.0", expect=404)
    assert [one["version"] for one in (await plugin(api))["versions"]] == ["1.1.0"]
    await api.call("POST", "/plugins/meter/rollback", expect=409)


async def test_a_disabled_plugin_stays_so_over_a_restart(api: ApiBench, room: Room) -> None:
    await upload(api, room.package())
    assert (await api.call("POST", "/plugins/meter/disable", expect=200))["data"]["state"] == "disabled"
    await api.call("POST", "/plugins/meter/decode", json={"hex": ["00"]}, expect=422)
    assert (await api.call("POST", "/plugins/meter/enable", expect=200))["data"]["state"] == "running"
    await api.call("POST", "/plugins/meter/disable", expect=200)
    assert room.restarted().status("meter").state == "disabled"


async def test_an_unknown_version_is_not_found(api: ApiBench, room: Room) -> None:
    await upload(api, room.package())
    await api.call("POST", "/plugins/meter/activate", json={"version": "9"}, expect=404)
    await api.call("POST", "/plugins/meter/shadow", json={"version": "9"}, expect=404)
    await api.call("POST", "/plugins/meter/promote", expect=409)
    await api.call("GET", "/plugins/meter/shadow", expect=404)


async def test_a_version_decodes_in_shadow_and_is_promoted(api: ApiBench, room: Room) -> None:
    await upload(api, room.package("1.0.0"))
    await upload(api, room.package("1.1.0"), "?activate=false")
    data = (await api.call("POST", "/plugins/meter/shadow", json={"version": "1.1.0"}, expect=200))["data"]
    assert (data["shadow"]["version"], data["shadow"]["running"]) == ("1.1.0", True)
    room.host.codec("meter").decode_batch([b"\x01\x02"])
    report: Any = {"frames": 0}
    while not report["frames"]:
        await asyncio.sleep(0.01)
        report = (await api.call("GET", "/plugins/meter/shadow", expect=200))["data"]
    assert (report["against"], report["different"], report["kinds"]) == ("1.0.0", 1, {"points": 1})
    assert report["differences"][0]["frame"] == "0102"
    await api.call("DELETE", "/plugins/meter/shadow", expect=200)
    assert (await api.call("GET", "/plugins/meter/shadow", expect=200))["data"]["running"] is False
    assert (await api.call("POST", "/plugins/meter/promote", expect=200))["data"]["version"] == "1.1.0"
    await api.call("POST", "/plugins/meter/shadow", json={"version": "1.1.0"}, expect=409)


# Trying


async def test_a_payloads_whole_way_shows_values_as_the_product_would_store_them(api: ApiBench, room: Room) -> None:
    await upload(api, room.package(manifest='[framing]\ntype = "fixed"\nframe_bytes = 2\n'))
    await product(api)
    body = {"hex": ["0001000200"], "product": "meters"}
    (item,) = (await api.call("POST", "/plugins/meter/try", json=body, expect=200))["data"]["items"]
    assert [frame["frame"] for frame in item["frames"]] == ["0001", "0002"]
    assert item["frames"][0]["item"]["kind"] == "report"
    assert item["frames"][0]["normalised"] == [
        {
            "at": None,
            "values": {"temperature": 21.5, "marker": "1.0.0"},
            "quality": {"temperature": "out_of_range", "marker": "unknown_property"},
            "shed": 0,
        }
    ]
    assert item["rest"] == "needs more bytes"
    assert all(took >= 0 for took in item["timings"].values())


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginHost]:
    root = tmp_path_factory.mktemp("shipped")
    for name in ("jt808", "sm3"):
        build_plugin(PLUGINS / name)
        (root / name).symlink_to(PLUGINS / name)
    made = PluginHost(WasmConfig(), [root], None)
    made.load_all()
    yield made
    made.close()


def shipped_desk(host: PluginHost, tmp_path: Path, catalog: Catalog) -> PluginDesk:
    return PluginDesk(host, PluginArea(tmp_path / "plugins"), catalog)


async def test_a_frame_that_a_codec_refuses_shows_its_code(shipped: PluginHost, tmp_path: Path) -> None:
    async with api_bench(plugins=lambda catalog: shipped_desk(shipped, tmp_path, catalog)) as api:
        wrong = HEARTBEAT[:-2] + b"\x00\x7e"
        body = {"hex": [HEARTBEAT.hex(), wrong.hex(), (b"\x01" + HEARTBEAT).hex()]}
        good, bad, noisy = (await api.call("POST", "/plugins/jt808/try", json=body, expect=200))["data"]["items"]
        assert good["frames"][0]["item"]["kind"] == "heartbeat"
        assert good["frames"][0]["item"]["ack"]["command"]
        (refused,) = bad["frames"]
        assert (refused["ok"], refused["code"], refused["error"]) == (False, 3, "checksum")
        assert noisy["skipped"] == 1
        encoded = {"command": "locate", "device": "013041000000", "serial": 1}
        assert (await api.call("POST", "/plugins/jt808/encode", json=encoded, expect=200))["data"]["hex"]
        await api.call("POST", "/plugins/jt808/call", json={}, expect=422)  # a codec takes no calls


async def test_a_plugin_that_answers_is_called_with_bytes(shipped: PluginHost, tmp_path: Path) -> None:
    async with api_bench(plugins=lambda catalog: shipped_desk(shipped, tmp_path, catalog)) as api:
        body = {"args": {"op": "hash", "data": {"$hex": b"abc".hex()}}}
        result = (await api.call("POST", "/plugins/sm3/call", json=body, expect=200))["data"]["result"]
        # GB/T 32905-2016, annex A.1
        digest = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
        assert result == {"digest": {"$hex": digest}}
        answer = await api.call("POST", "/plugins/sm3/call", json={"args": {"op": "sing"}}, expect=422)
        assert answer["code"] == "codec.failed"


async def test_what_the_framing_passes_over_is_counted(shipped: PluginHost, tmp_path: Path, api: ApiBench) -> None:
    desk = shipped_desk(shipped, tmp_path, api.catalog)
    noise, flag, frame, after = await desk.try_decode("jt808", [b"\x00", b"\x7e", HEARTBEAT, b"\x01\x02" + HEARTBEAT])
    assert (noise.frames, noise.skipped) == ([], 1)
    assert flag.frames == []
    assert ([outcome.code for outcome in frame.frames], frame.skipped) == ([None], 0)
    assert ([outcome.code for outcome in after.frames], after.skipped) == ([None], 2)


@pytest.mark.parametrize("whole", [False, True])
async def test_the_loop_serves_others_while_many_frames_are_tried(
    shipped: PluginHost, tmp_path: Path, api: ApiBench, whole: bool
) -> None:
    desk = shipped_desk(shipped, tmp_path, api.catalog)
    inputs = [HEARTBEAT * 3000]
    work: Any = desk.try_whole("jt808", inputs, 0, None) if whole else desk.try_decode("jt808", inputs)
    trying = asyncio.get_running_loop().create_task(work)
    turns = 0
    while not trying.done():
        await asyncio.sleep(0)
        turns += 1
    (tried,) = await trying
    assert len(tried.frames) == 3000
    assert turns >= 3000 // 256


@pytest.mark.parametrize("whole", [False, True])
async def test_a_codec_that_hangs_at_every_frame_leaves_the_loop_to_others(
    tmp_path: Path, api: ApiBench, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(trial_room, "TRIAL_S", 0.2)
    monkeypatch.setattr(trial_room, "_SLICE_FRAMES", 2)
    nursery = Nursery(tmp_path)
    nursery.put("meter", "1.0", counting("a"))
    desk = PluginDesk(nursery.host(), nursery.area, api.catalog)
    inputs = [b"L" + bytes([number]) for number in range(200)]
    work: Any = desk.try_whole("meter", inputs, 0, None) if whole else desk.try_decode("meter", inputs)
    trying = asyncio.get_running_loop().create_task(work)
    turns = 0
    while not trying.done():
        await asyncio.sleep(0)
        turns += 1
    tried = await trying
    nursery.close()
    assert [len(one.frames) for one in tried] == [1] * 200
    assert tried[0].frames[0].code == TRAPPED
    assert (tried[-1].frames[0].code, tried[-1].frames[0].error) == (NOT_TRIED, "not tried: out of time")
    assert turns > 200  # on the loop, there was one for each input


async def test_an_answer_that_is_full_says_so_of_the_frames_it_does_not_show(
    api: ApiBench, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_room, "MOST_SHOWN_BYTES", 1000)
    await upload(api, room.package())
    answer = await api.call("POST", "/plugins/meter/try", json={"hex": ["00"] * 50}, expect=200)
    outcomes = [one["frames"][0] for one in answer["data"]["items"]]
    assert (outcomes[0]["ok"], outcomes[-1]["ok"], outcomes[-1]["code"]) == (True, False, NOT_SHOWN)
    assert outcomes[-1]["error"].startswith("not shown")


async def test_trying_leaves_the_running_instance_as_it_is(tmp_path: Path, api: ApiBench) -> None:
    nursery = Nursery(tmp_path)
    nursery.put("meter", "1.0", counting("a"))
    host = nursery.host()
    desk = PluginDesk(host, nursery.area, api.catalog)
    await desk.try_decode("meter", [b"a", b"T", b"b"])
    assert await desk.try_encode("meter", {"command": "any"}) == b"a"
    status, result = host.status("meter"), host.codec("meter").decode_batch([b"a"])[0]
    nursery.close()
    assert (status.strikes, getattr(result, "reply_to", None)) == (0, 1)
