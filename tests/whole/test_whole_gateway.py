"""A whole gateway on the shipped configuration: real terminals' traffic from the socket to the API."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from fakes.eventually import eventually
from fakes.process import REPOSITORY, GatewayProcess

from gateway.simulate import jt808

VECTORS = json.loads((REPOSITORY / "plugins/jt808/vectors.json").read_text())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("whole") / "data") as running:
        yield running


def simulate(gateway: GatewayProcess, **options: Any) -> jt808.Result:
    return uvloop.run(jt808.run(jt808.Options(port=gateway.ports["jt808"]["port"], **options)))


def test_simulated_terminals_are_acknowledged_seen_online_stored_alarmed_and_cleared(gateway: GatewayProcess) -> None:
    before = gateway.metrics()
    result = simulate(gateway, devices=8, rate=4, seconds=20, first_phone=13_700_000_000)
    assert result.clean, result
    assert result.sent >= 8 * 4 * 19
    phones = [f"{13_700_000_000 + number:012d}" for number in range(8)]
    events = gateway.items("/api/v1/devices/" + phones[0] + "/events")
    assert {"device.registered", "device.online"} <= {event["type"] for event in events}
    eventually(lambda: not any(gateway.get(f"/api/v1/devices/{phone}")["online"] for phone in phones))

    stored = sum(gateway.get(f"/api/v1/devices/{phone}/history?property=speed_km_h")["total"] for phone in phones)
    assert stored == result.sent
    points = gateway.items(f"/api/v1/devices/{phones[0]}/history?property=speed_km_h")
    times = [point["observed_at"] for point in points]
    assert times == sorted(times)
    assert max(point["value"] for point in points) > 80
    path = f"/api/v1/devices/{phones[0]}/history?property=speed_km_h&interval=1h&agg="
    for how, wanted in (
        ("max", max(point["value"] for point in points)),
        ("min", min(point["value"] for point in points)),
        ("count", len(points)),
        ("avg", sum(point["value"] for point in points) / len(points)),
    ):
        buckets = gateway.items(path + how)
        if len(buckets) == 1:  # the run did not cross a full hour
            assert buckets[0]["value"] == pytest.approx(wanted)
    properties = {item["property"]: item for item in gateway.get(f"/api/v1/devices/{phones[0]}/properties")["items"]}
    assert properties["speed_km_h"]["unit"] == "km/h"
    assert properties["latitude"]["quality"] == "good"
    assert -90 <= properties["latitude"]["value"] <= 90

    for phone in phones:
        alarms = eventually(lambda phone=phone: cleared(gateway, phone))
        assert len(alarms) == 1, "one alarm per drive above the limit"
    after = gateway.metrics()
    gained = after["gateway_messages_stored_total"] - before.get("gateway_messages_stored_total", 0)
    assert gained >= result.sent
    assert after["gateway_messages_accepted_total"] == after["gateway_messages_stored_total"] + sum(
        value for name, value in after.items() if name.startswith("gateway_messages_shed_total")
    )


def cleared(gateway: GatewayProcess, phone: str) -> list[dict[str, Any]]:
    alarms = gateway.items(f"/api/v1/alarms?device_id={phone}")
    return alarms if alarms and all(alarm["state"] == "cleared" for alarm in alarms) else []


def test_every_captured_frame_decodes_through_the_api_as_the_vectors_say(gateway: GatewayProcess) -> None:
    gateway.login()
    vectors = VECTORS["vectors"]
    answer = gateway.call("POST", "/api/v1/plugins/jt808/decode", {"hex": [vector["frame_hex"] for vector in vectors]})
    for vector, item in zip(vectors, answer["data"]["items"], strict=True):
        (frame,) = item["frames"]
        assert frame["ok"], frame
        for name, wanted in vector["expect"].items():
            if name == "location":
                assert wanted.items() <= frame["value"]["location"].items()
            else:
                assert frame["value"][name] == wanted


def test_captured_locations_sent_on_one_socket_are_in_the_history_of_each_terminal(gateway: GatewayProcess) -> None:
    locations: dict[str, list[dict[str, Any]]] = {}
    with socket.create_connection(("127.0.0.1", gateway.ports["jt808"]["port"])) as peer:
        for vector in VECTORS["vectors"]:
            peer.sendall(bytes.fromhex(vector["frame_hex"]))
            if "location" in vector["expect"]:
                locations.setdefault(vector["expect"]["terminal_phone"], []).append(vector["expect"]["location"])
        for phone, wanted in locations.items():
            eventually(
                lambda phone=phone, wanted=wanted: (
                    gateway.call("GET", f"/api/v1/devices/{phone}/history?property=latitude")
                    .get("data", {})
                    .get("total", 0)
                    >= len(wanted)
                )
            )
            stored = gateway.items(f"/api/v1/devices/{phone}/history?property=latitude")
            assert sorted(point["value"] for point in stored) == sorted(one["latitude"] for one in wanted)


def test_garbage_a_wrong_checksum_and_a_lying_length_leave_the_neighbour_acknowledged(gateway: GatewayProcess) -> None:
    port = gateway.ports["jt808"]["port"]
    good = bytes.fromhex(VECTORS["vectors"][1]["frame_hex"])
    wrong = bytearray(good)
    wrong[20] ^= 0x55
    before = gateway.metrics()
    with socket.create_connection(("127.0.0.1", port)) as bad, socket.create_connection(("127.0.0.1", port)) as peer:
        bad.sendall(b"\x00garbage" * 50 + bytes(wrong) + b"\x7e" + b"\x01" * 3 + b"\x7e")
        peer.settimeout(10)
        peer.sendall(good)
        assert peer.recv(100).startswith(b"\x7e\x80\x01")
    shed = 'gateway_messages_shed_total{reason="checksum"}'
    eventually(lambda: gateway.metrics().get(shed, 0) > before.get(shed, 0))
    letters = gateway.items("/api/v1/dead-letters")
    assert any(letter["reason"] == "checksum" for letter in letters)


def test_a_terminal_gets_its_code_again_and_a_command_reaches_it(gateway: GatewayProcess) -> None:
    """Register, authenticate, then a platform command answered by the terminal's own serial."""
    result = simulate(gateway, devices=1, rate=2, seconds=1, first_phone=13_600_000_000)
    again = simulate(gateway, devices=1, rate=2, seconds=1, first_phone=13_600_000_000)
    assert result.clean, result
    assert again.clean, again
    gateway.login()
    answer = gateway.call("POST", "/api/v1/devices/013600000000/commands", {"name": "locate", "timeout_s": 20})
    assert answer["data"]["status"] == "queued"
    simulate(gateway, devices=1, rate=2, seconds=2, first_phone=13_600_000_000)
    command = eventually(
        lambda: next(
            (
                command
                for command in gateway.items("/api/v1/devices/013600000000/commands")
                if command["status"] == "acknowledged"
            ),
            None,
        )
    )
    assert command["id"] == answer["data"]["id"]


def test_arguments_that_no_wire_can_carry_are_refused(gateway: GatewayProcess) -> None:
    simulate(gateway, devices=1, rate=2, seconds=1, first_phone=13_400_000_000)
    gateway.login()
    for args in ({"x": 10**30}, {"parameters": {"0x0001": -1}}):
        answer = gateway.call("POST", "/api/v1/devices/013400000000/commands", {"name": "set_parameters", "args": args})
        assert answer["http"] == 422, answer


def test_a_rule_written_while_it_runs_is_live_and_a_broken_one_shows_its_line(tmp_path: Path) -> None:
    scripts = tmp_path / "rules"
    scripts.mkdir()
    with GatewayProcess(tmp_path / "data", GATEWAY__RULES__DIRECTORY=str(scripts)) as gateway:
        (scripts / "moving.lua").write_text(
            'on.message{product = "jt808-terminal", property = "speed_km_h"}(function(msg, state)\n'
            '  if msg.values.speed_km_h > 0 then alarm.raise{severity = "info", message = "moves"} end\n'
            "end)\n"
        )
        (scripts / "broken.lua").write_text("x = = 1\n")
        eventually(lambda: len(gateway.get("/api/v1/rules")["items"]) == 2)
        states = {rule["name"]: rule for rule in gateway.get("/api/v1/rules")["items"]}
        assert states["broken"]["state"] == "broken"
        assert ":1:" in states["broken"]["last_error"] or "line 1" in states["broken"]["last_error"]
        simulate(gateway, devices=1, rate=5, seconds=3)
        eventually(lambda: gateway.items("/api/v1/alarms?state=active&rule=moving"))


def test_the_live_stream_resumes_after_the_last_event_it_saw(gateway: GatewayProcess) -> None:
    simulate(gateway, devices=1, rate=1, seconds=1, first_phone=13_500_000_000)
    gateway.login()
    seen = read_events(gateway, "device=013500000000", 3)
    assert [event["type"] for event in seen][:2] == ["device.registered", "device.online"]
    resumed = read_events(gateway, f"device=013500000000&last_event_id={seen[0]['id']}", 2)
    assert [event["id"] for event in resumed] == [event["id"] for event in seen[1:]]


def read_events(gateway: GatewayProcess, query: str, count: int) -> list[dict[str, str]]:
    mark = "" if "last_event_id" in query else "&last_event_id=0"
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{gateway.url}/api/v1/stream?{query}{mark}", headers={"Authorization": f"Bearer {gateway.token}"}
    )
    events: list[dict[str, str]] = []
    event: dict[str, str] = {}
    with urllib.request.urlopen(request, timeout=15) as stream:  # noqa: S310 - our own URL
        for line in stream:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                event[{"event": "type"}.get(name, name)] = value
            elif event.get("id"):
                events.append(event)
                event = {}
                if len(events) == count:
                    break
            else:
                event = {}
    return events


def test_health_documents_and_metrics_are_served_without_the_internet(gateway: GatewayProcess) -> None:
    health = gateway.get("/health")
    assert health["status"] == "ok"
    names = {process["name"] for process in health["processes"]}
    assert {"gateway", "rules", "scenes"} <= names
    document = json.loads(urllib.request.urlopen(gateway.url + "/openapi.json", timeout=10).read())  # noqa: S310
    assert "/api/v1/devices" in document["paths"]
    page = urllib.request.urlopen(gateway.url + "/docs", timeout=10).read().decode()  # noqa: S310
    assert "http://" not in page
    assert "https://" not in page


def test_products_of_the_file_are_changed_in_the_file(gateway: GatewayProcess) -> None:
    gateway.login()
    answer = gateway.call("DELETE", "/api/v1/products/jt808-terminal")
    assert answer["http"] == 409
    assert answer["success"] is False
