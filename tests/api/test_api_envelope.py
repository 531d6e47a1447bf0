import asyncio
import io
import json
import re
import zlib
from typing import Any

import pytest
from fakes.api_fakes import ApiBench, api_bench
from fakes.eventually import eventually

from gateway.api.application import create_app
from gateway.api.config import HttpConfig
from gateway.api.errors import STATUS, status_of
from gateway.api.server import HttpServer
from gateway.core import errors
from gateway.core.errors import GatewayError

LOGIN = "/auth/login"


def assert_failure(answer: Any, code: str) -> None:
    assert set(answer) == {"success", "error", "code", "request_id"}
    assert answer["success"] is False
    assert answer["code"] == code
    assert answer["error"]
    assert answer["request_id"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "body.malformed"),
        (b"{", 400, "body.malformed"),
        (b"nonsense", 400, "body.malformed"),
        (b'{"username": "\xff\xfe", "password": "x"}', 400, "body.malformed"),
        (b'{"username": "\\ud800", "password": "x"}', 400, "body.malformed"),
        (b'{"username": NaN, "password": "x"}', 400, "body.malformed"),
        (b'{"username": 1e999, "password": "x"}', 400, "body.malformed"),
        (b"[" * 100_000, 400, "body.malformed"),
        (b'{"a":' * 100_000, 400, "body.malformed"),
        (b"[]", 422, "invalid"),
        (b"null", 422, "invalid"),
        (b'"text"', 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b'{"username": "a"}', 422, "invalid"),
        (b'{"username": 1, "password": "x"}', 422, "invalid"),
        (b'{"username": null, "password": "x"}', 422, "invalid"),
        (b'{"username": ["a"], "password": "x"}', 422, "invalid"),
        (b'{"username": "a", "password": "x", "extra": 1}', 422, "invalid"),
        (b'{"username": "' + b"a" * 65 + b'", "password": "x"}', 422, "invalid"),
        (b'{"username": 123456789012345678901234567890, "password": "x"}', 422, "invalid"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_in_the_envelope(
    api: ApiBench, body: bytes, status: int, code: str
) -> None:
    answer = await api.call(
        "POST", LOGIN, token=None, data=body, headers={"Content-Type": "application/json"}, expect=status
    )
    assert_failure(answer, code)


async def test_an_invalid_field_is_named_and_its_value_is_not_echoed(api: ApiBench) -> None:
    body = {"username": "ann", "password": ["canary"], "extra": "canary"}
    answer = await api.call("POST", LOGIN, token=None, json=body, expect=422)
    assert "password" in answer["error"]
    assert "extra" in answer["error"]
    assert "canary" not in answer["error"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
async def test_a_body_of_another_type_is_refused(api: ApiBench, kind: str) -> None:
    body = b'{"username": "root", "password": "right horse"}'
    answer = await api.call("POST", LOGIN, token=None, data=body, headers={"Content-Type": kind}, expect=415)
    assert_failure(answer, "body.unsupported_type")


async def test_json_with_a_charset_is_json(api: ApiBench) -> None:
    body = b'{"username": "root", "password": "right horse"}'
    kind = {"Content-Type": "application/json; charset=utf-8"}
    await api.call("POST", LOGIN, token=None, data=body, headers=kind, expect=200)


async def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not(api: ApiBench) -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    kind = {"Content-Type": "application/json"}
    for data in (io.BytesIO(b" " * 2_000_000), pieces()):
        answer = await api.call("POST", LOGIN, token=None, data=data, headers=kind, expect=413)
        assert_failure(answer, "body.too_large")


async def test_a_compressed_body_is_bounded_by_what_it_unpacks_to(api: ApiBench) -> None:
    bomb = zlib.compress(b" " * 50_000_000)
    kind = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
    status, _, answer = await api.call_raw("POST", "/api/v1" + LOGIN, token=None, data=bomb, headers=kind)
    assert status == 413
    assert_failure(answer, "body.too_large")


async def test_a_body_that_is_not_compressed_as_it_says_is_malformed_and_no_failure_of_the_gateway(
    api: ApiBench, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for path, kind in ((LOGIN, "application/json"), ("/plugins", "application/octet-stream")):
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        status, _, answer = await api.call_raw("POST", "/api/v1" + path, data=b"no gzip", headers=headers)
        assert status == 400
        assert_failure(answer, "body.malformed")
    logged = capsys.readouterr()
    assert "Traceback" not in logged.out + logged.err + caplog.text


async def test_a_client_that_goes_away_amid_its_body_is_no_failure_of_the_gateway(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def connected() -> bool:
        return any(one.name == "gateway_http_connections" and one.value for one in api.server.samples())

    async with api_bench() as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        )
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # its body is waited for
        writer.close()
        await asyncio.to_thread(eventually, lambda: not connected())
    logged = capsys.readouterr()
    assert "request failed" not in logged.out + logged.err + caplog.text


async def test_a_body_that_does_not_come_is_given_up() -> None:
    async with api_bench(body_s=0.1) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(
            b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 408 " in head
        writer.close()


async def test_a_head_that_does_not_come_is_given_up() -> None:
    async with api_bench(idle_s=0.1) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 10_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-Many: a\r\n" * 200 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_what_is_no_proper_head_is_refused_in_the_envelope(api: ApiBench, head: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head)
    answer = await asyncio.wait_for(reader.read(), 10)
    start, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.[01] 4\d\d", start)
    assert_failure(json.loads(body), json.loads(body)["code"])
    writer.close()


async def test_connections_over_the_limit_are_closed_at_once() -> None:
    async with api_bench(max_connections=2) as api:
        kept = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        counted = {sample.name: sample.value for sample in api.server.samples()}
        assert counted == {"gateway_http_connections": 2, "gateway_http_refused_connections_total": 1}
        for _, other in [*kept, (reader, writer)]:
            other.close()


async def test_an_unknown_path_and_a_wrong_method_answer_in_the_envelope(api: ApiBench) -> None:
    assert_failure(await api.call("GET", "/nothing", expect=404), "not_found")
    assert_failure((await api.call_raw("GET", "/nothing", token=None))[2], "not_found")
    status, headers, answer = await api.call_raw("DELETE", "/api/v1/devices")
    assert status == 405
    assert headers["Allow"].replace(" ", "") == "GET,HEAD,POST"
    assert_failure(answer, "http.method_not_allowed")
    status, headers, _ = await api.call_raw("POST", "/docs")
    assert status == 405


async def test_head_is_get_without_a_body_and_options_tells_the_methods(api: ApiBench) -> None:
    status, headers, text = await api.call_raw("HEAD", "/api/v1/devices")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 0
    status, headers, _ = await api.call_raw("OPTIONS", "/api/v1/devices")
    assert status == 204
    assert headers["Allow"] == "GET, HEAD, POST"


async def test_every_answer_carries_its_request_id_and_the_security_headers(api: ApiBench) -> None:
    for path in ("/health", "/metrics", "/openapi.json", "/docs", "/api/v1/devices", "/api/v1/nothing", "/nothing"):
        _, headers, answer = await api.call_raw("GET", path)
        assert len(headers["X-Request-ID"]) == 36
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] == "flux-gateway"
        assert "Access-Control-Allow-Origin" not in headers
        if isinstance(answer, dict) and answer.get("success") is False:
            assert answer["request_id"] == headers["X-Request-ID"]


async def test_a_proxys_request_id_is_kept_when_it_is_plain(api: ApiBench) -> None:
    _, headers, answer = await api.call_raw("GET", "/nothing", headers={"X-Request-ID": "proxy-7"})
    assert (headers["X-Request-ID"], answer["request_id"]) == ("proxy-7", "proxy-7")
    _, headers, _ = await api.call_raw("GET", "/nothing", headers={"X-Request-ID": "<script>"})
    assert headers["X-Request-ID"] != "<script>"


async def test_an_unforeseen_failure_is_a_500_that_tells_nothing_but_the_request_id(
    api: ApiBench, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("canary detail")

    api.history.dead_letters = broken  # type: ignore[method-assign,assignment]
    answer = await api.call("GET", "/dead-letters", expect=500)
    assert_failure(answer, "internal")
    assert "canary" not in answer["error"]
    logged = capsys.readouterr()
    assert answer["request_id"] in logged.out + logged.err


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NotReady("busy"), 503, "not_ready"),
        (errors.StorageFailed("disk full"), 503, "storage.failed"),
        (errors.PluginTrapped(-1, "trapped"), 422, "codec.trapped"),
        (errors.Conflict("no"), 409, "conflict"),
        (errors.ConfigError("secret path"), 500, "internal"),
    ],
)
async def test_an_error_of_a_room_leaves_by_the_table(
    api: ApiBench, error: GatewayError, status: int, code: str
) -> None:
    async def failing(*_: object) -> None:
        raise error

    api.history.dead_letters = failing  # type: ignore[method-assign,assignment]
    got, headers, answer = await api.call_raw("GET", "/api/v1/dead-letters")
    assert got == status
    assert_failure(answer, code)
    assert ("Retry-After" in headers) == (status == 503)
    assert "secret" not in answer["error"]


def test_every_error_that_a_caller_can_cause_has_a_status() -> None:
    def family(kind: type[GatewayError]) -> set[type[GatewayError]]:
        return {kind}.union(*(family(sub) for sub in kind.__subclasses__()))

    ours = family(errors.ConfigError) | family(errors.FramingError)
    for kind in family(GatewayError) - {GatewayError} - ours:
        assert any(base in STATUS for base in kind.__mro__), kind
    assert status_of(errors.ConfigError("x")) == 500


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=x",
        "limit=0",
        "limit=1001",
        "limit=1.5",
        "page=99999999999",
        "sort=secret",
        "sort=--id",
        "serach=x",
        "page=1&page=2",
    ],
)
async def test_a_wrong_page_request_is_refused(api: ApiBench, query: str) -> None:
    assert_failure(await api.call("GET", f"/devices?{query}", expect=422), "invalid")


async def test_a_mistyped_parameter_is_refused_also_where_a_route_takes_none(api: ApiBench) -> None:
    assert "unknown query parameter" in (await api.call("GET", "/auth/me?verbose=1", expect=422))["error"]


async def test_an_empty_parameter_counts_as_absent(api: ApiBench) -> None:
    await api.call("GET", "/devices?page=&limit=&product_id=&online=&search=", expect=200)


async def test_a_stop_lets_the_request_under_way_finish() -> None:
    async with api_bench() as api:
        begun, go_on = asyncio.Event(), asyncio.Event()
        report = api.health.report

        async def slow() -> Any:
            begun.set()
            await go_on.wait()
            return await report()

        api.health.report = slow  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(api.call_raw("GET", "/health"))
            await begun.wait()
            stop = group.create_task(api.server.stop())
            await asyncio.sleep(0.05)
            go_on.set()
        assert answer.result()[0] == 200
        assert stop.done()


async def test_a_port_in_use_is_told_with_what_to_do(api: ApiBench) -> None:
    second = HttpServer(HttpConfig(port=api.port), create_app(api.parts, HttpConfig()))
    with pytest.raises(errors.ConfigError, match=rf"\[http\] cannot listen on 127.0.0.1 port {api.port}"):
        await second.start("127.0.0.1")
