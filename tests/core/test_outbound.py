"""The one way out over HTTP: what is not on the list stays in, and every request is bounded."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fakes.rules_fakes import until
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError, GatewayError, NotReady, Rejected
from gateway.core.outbound import AiohttpOutbound, AllowList, OutboundConfig, check_headers, is_public

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def echo(request: web.Request) -> web.Response:
    """Answer with what arrived."""
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": (await request.read()).decode(),
        }
    )


@asynccontextmanager
async def server(handler: Handler = echo, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port of loopback."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def outbound(*allow: str, **options: Any) -> AsyncIterator[AiohttpOutbound]:
    wired = {name: options.pop(name) for name in ("resolve", "tls") if name in options}
    port = AiohttpOutbound(OutboundConfig(allow=allow, **options), **wired)
    try:
        yield port
    finally:
        await port.close()


def resolving(*answers: list[str]) -> Any:
    """A resolver that gives these answers in turn, the last one for ever; `asked` counts."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        resolve.asked += 1  # type: ignore[attr-defined]
        return left.pop(0) if len(left) > 1 else left[0]

    resolve.asked = 0  # type: ignore[attr-defined]
    return resolve


async def test_a_request_arrives_as_it_was_made_and_its_answer_comes_back() -> None:
    async with server() as port, outbound(f"127.0.0.1:{port}") as out:
        reply = await out.request(
            "POST", f"http://127.0.0.1:{port}/a%20b?x=%2B&y=%E4%B8%AD", headers={"X-One": "1"}, body="中".encode()
        )
        assert reply.status == 200
        assert not reply.cut
        assert reply.headers["content-type"].startswith("application/json")
        text = reply.body.decode()
    assert '"path": "/a%20b?x=%2B&y=%E4%B8%AD"' in text
    assert '"x-one": "1"' in text
    assert '"method": "POST"' in text
    assert '"user-agent": "flux-gateway"' in text


async def test_nothing_leaves_until_its_host_is_listed_and_the_error_says_what_to_list() -> None:
    async with server() as port:
        async with outbound() as out:
            with pytest.raises(ConfigError, match=rf'add "127.0.0.1:{port}" to \[outbound\] allow'):
                await out.request("GET", f"http://127.0.0.1:{port}/")
            with pytest.raises(ConfigError, match=r'add "oapi\.example\.com" to'):
                out.check("https://oapi.example.com/robot/send?access_token=canary")
        async with outbound("127.0.0.1", "127.0.0.1:1") as out:
            with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}"):
                await out.request("GET", f"http://127.0.0.1:{port}/")


async def test_plain_http_is_for_loopback_or_for_who_asks_for_it() -> None:
    async with outbound("example.com", "localhost", "127.0.0.1", "[::1]") as out:
        with pytest.raises(ConfigError, match=r"use https, or set \[outbound\] allow_http"):
            out.check("http://example.com/")
        for url in ("http://localhost/", "http://127.0.0.1/", "http://[::1]/", "https://example.com/"):
            out.check(url)
    async with outbound("example.com", allow_http=True) as out:
        out.check("http://example.com/")


async def test_a_redirect_is_an_answer_and_nobody_follows_it() -> None:
    visits: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        visits.append(request.path)
        raise web.HTTPFound("/secret-place")

    async with server(elsewhere) as port, outbound(f"127.0.0.1:{port}") as out:
        reply = await out.request("GET", f"http://127.0.0.1:{port}/first")
    assert (reply.status, reply.headers["location"]) == (302, "/secret-place")
    assert visits == ["/first"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//127.0.0.1/",
        "/relative",
        "",
        "https://",
        "https://user:canary@127.0.0.1/",
        "https://127.0.0.1:99999/",
        "https://[::1/",
    ],
)
async def test_what_is_no_url_is_refused_without_being_repeated(url: str) -> None:
    async with outbound("127.0.0.1") as out:
        with pytest.raises(Rejected) as refusal:
            await out.request("GET", url)
    assert "canary" not in str(refusal.value)


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fc00::1",
    "fe80::1",
    "ff02::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1::a00:1",
    "::8.8.8.8",
    "::10.0.0.1",
    "fec0::1",
    "192.0.0.8",
    "192.0.0.170",
    "::ffff:192.0.0.9",
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "::169.254.169.254",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("address", METADATA)
async def test_where_clouds_keep_credentials_is_never_asked_by_name_or_address_whatever_is_listed(
    address: str,
) -> None:
    assert not is_public(ipaddress.ip_address(address))
    for host in ("meta.example.com", "*.example.com"):
        async with outbound(host, allow_http=True, resolve=resolving([address])) as out:
            with pytest.raises(ConfigError, match="clouds keep credentials"):
                await out.request("GET", "http://meta.example.com/")
    entry = f"[{address}]" if ":" in address else address
    async with outbound("*.example.com", allow_http=True) as out:
        with pytest.raises(ConfigError, match="clouds keep credentials"):
            out.check(f"http://{entry}/latest")
    with pytest.raises(ConfigError, match=r"\[outbound\] allow: .*clouds keep credentials"):
        AllowList((f"{entry}:80",))


@pytest.mark.parametrize("host", ["2852039166", "169.254.43518", "127.1", "0251.0376.0251.0376", "1.2.3.4.5"])
async def test_another_spelling_of_an_address_is_refused_before_anybody_reads_it_as_one(host: str) -> None:
    async with outbound(host, allow_http=True) as out:
        with pytest.raises(Rejected, match=r"write an IPv4 address as four numbers"):
            out.check(f"http://{host}/latest")


async def test_a_good_address_beside_one_of_metadata_is_the_one_that_is_asked() -> None:
    async with outbound("a.example.com", resolve=resolving(["169.254.169.254", "8.8.8.8"])) as out:
        assert await out._addresses("a.example.com", 443) == ["8.8.8.8"]


async def test_loopback_is_loopback_in_both_spellings() -> None:
    """`::1` lies in the block of IPv4-compatible addresses and is none."""
    async with outbound("[::1]", "127.0.0.1") as out:
        out.check("http://[::1]:80/")
        out.check("http://127.0.0.1/")


@pytest.mark.parametrize("host", ["a" * 64 + ".example.com", "a..example.com"])
async def test_a_name_that_cannot_be_looked_up_is_refused(host: str) -> None:
    async with outbound("*.example.com", host if ".." not in host else "x") as out:
        with pytest.raises(Rejected, match="cannot be"):
            await out.request("GET", f"https://{host}/")


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_under_a_pattern_never_reaches_an_inner_address(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    async with outbound("*.example.com", resolve=resolving([address])) as out:
        with pytest.raises(ConfigError, match=r'name the host in full, as "evil.example.com", in \[outbound\] allow'):
            await out.request("GET", "https://evil.example.com/")


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_a_host_named_in_full_may_be_inside_but_not_at_a_link_local_address() -> None:
    async with server() as port:
        async with outbound(f"alerts.lan:{port}", allow_http=True, resolve=resolving(["127.0.0.1"])) as out:
            reply = await out.request("GET", f"http://alerts.lan:{port}/")
            assert f'"host": "alerts.lan:{port}"' in reply.body.decode()
        async with outbound(f"alerts.lan:{port}", allow_http=True, resolve=resolving(["fe80::1"])) as out:
            with pytest.raises(ConfigError, match="name the address itself"):
                await out.request("GET", f"http://alerts.lan:{port}/")


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    """A name that answers differently the second time (DNS rebinding) gains nothing."""
    async with server() as port:
        resolve = resolving(["127.0.0.1"], ["169.254.169.254"])
        async with outbound(f"alerts.lan:{port}", allow_http=True, resolve=resolve) as out:
            reply = await out.request("GET", f"http://alerts.lan:{port}/")
            assert reply.status == 200
        assert resolve.asked == 1


async def test_an_inner_address_among_public_ones_is_not_connected_to() -> None:
    async with outbound("*.example.com", resolve=resolving(["10.0.0.1", "192.168.0.1"])) as out:
        with pytest.raises(ConfigError):
            await out._addresses("a.example.com", 443)
    async with outbound("*.example.com", resolve=resolving(["10.0.0.1", "8.8.8.8"])) as out:
        assert await out._addresses("a.example.com", 443) == ["8.8.8.8"]


async def test_an_address_is_covered_by_no_pattern() -> None:
    async with outbound("*.0.0.1", "*.com") as out:
        for url in ("https://127.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/"):
            with pytest.raises(ConfigError):
                out.check(url)


async def test_the_proxies_and_credentials_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password canary")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with server() as port, outbound(f"127.0.0.1:{port}") as out:
        reply = await out.request("GET", f"http://127.0.0.1:{port}/")
    assert reply.status == 200
    assert "authorization" not in reply.body.decode()


async def test_an_answer_is_read_up_to_its_bound_and_says_that_it_was_cut() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with server(endless) as port, outbound(f"127.0.0.1:{port}", max_response_bytes=1000) as out:
        reply = await out.request("GET", f"http://127.0.0.1:{port}/")
    assert (len(reply.body), reply.cut) == (1000, True)


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async def packed(request: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8b not gzip at all", headers={"Content-Encoding": "gzip"})

    async with server(packed) as port, outbound(f"127.0.0.1:{port}") as out:
        reply = await out.request("GET", f"http://127.0.0.1:{port}/")
    assert reply.body == b"\x1f\x8b not gzip at all"


async def test_a_server_that_does_not_answer_costs_the_time_of_the_request_and_no_more() -> None:
    asked = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("it never answers")

    async with server(silent) as port, outbound(f"127.0.0.1:{port}") as out:
        with pytest.raises(NotReady, match=rf"127.0.0.1:{port} did not answer within 0.2 s"):
            await out.request("GET", f"http://127.0.0.1:{port}/?token=canary", timeout_s=0.2)
        assert asked.is_set()
        assert out.under_way == 0


async def test_no_connection_is_not_ready_and_the_error_holds_no_path() -> None:
    async with server() as port:
        pass
    async with outbound(f"127.0.0.1:{port}", f"nowhere.lan:{port}", allow_http=True) as out:
        with pytest.raises(NotReady, match="no connection") as failure:
            await out.request("GET", f"http://127.0.0.1:{port}/path?token=canary")
    assert "canary" not in str(failure.value)
    assert failure.value.__cause__ is None


async def test_a_name_without_an_address_is_not_ready() -> None:
    async def none(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    async with outbound("nowhere.example.com", resolve=none) as out:
        with pytest.raises(NotReady, match=r"nowhere.example.com:443: the name has no address"):
            await out.request("GET", "https://nowhere.example.com/")


async def test_a_connection_that_breaks_is_not_ready() -> None:
    async def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with server(drop) as port, outbound(f"127.0.0.1:{port}") as out:
        with pytest.raises(NotReady, match="broke"):
            await out.request("POST", f"http://127.0.0.1:{port}/", body=b"{}")


async def test_only_so_many_requests_are_under_way_and_only_so_many_wait() -> None:
    let_go, inside, most = asyncio.Event(), 0, 0

    async def slow(request: web.Request) -> web.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await let_go.wait()
        inside -= 1
        return web.Response()

    async with server(slow) as port, outbound(f"127.0.0.1:{port}", concurrency=2, max_waiting=3) as out:
        url = f"http://127.0.0.1:{port}/"
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(out.request("GET", url)) for _ in range(5)]
            await until(lambda: inside == 2)
            with pytest.raises(NotReady, match=r"\[outbound\] concurrency"):
                await out.request("GET", url)
            let_go.set()
        assert [task.result().status for task in tasks] == [200] * 5
        assert most == 2
        assert out.under_way == 0


async def test_a_body_and_headers_over_their_bound_do_not_leave() -> None:
    async with outbound("example.com", max_request_bytes=10, max_header_bytes=64) as out:
        with pytest.raises(Rejected, match="max_request_bytes"):
            await out.request("POST", "https://example.com/", body=b"x" * 11)
        with pytest.raises(Rejected, match="larger than 64 bytes"):
            await out.request("POST", "https://example.com/", headers={"X": "x" * 64})


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nHost: evil"},
        {"X": "a\nb"},
        {"X": "\x00"},
        {"X\r\nY": "1"},
        {"X Y": "1"},
        {"": "1"},
        {"Host": "evil"},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
    ],
)
def test_a_header_that_would_break_out_or_frame_the_message_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        check_headers(headers, 10_000)


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "a b", "host:0", "host:99999", "https://host", "host/path", "a.*.com", "*.*.com", "a@b", "[::1"],
)
def test_an_entry_that_is_no_host_is_refused_with_the_key(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"\[outbound\] allow"):
        AllowList((entry,))


@given(st.text(alphabet="abA.*-:019[]", max_size=12))
def test_any_entry_is_a_host_or_an_error_of_the_configuration(entry: str) -> None:
    try:
        AllowList((entry,))
    except ConfigError:
        return


@given(st.text(max_size=30))
async def test_any_text_is_refused_as_a_url_or_not_on_the_list(text: str) -> None:
    async with outbound("example.com") as out:
        for url in (text, f"https://{text}", f"https://example.com{text}"):
            try:
                out.check(url)
            except GatewayError:
                continue
            assert url.lower().startswith("https://example.com")


def test_patterns_cover_what_is_below_them_and_nothing_else() -> None:
    allowed = AllowList(("*.example.com", "*.lan:8443", "One.Example.ORG."))
    for host, port, default, wanted in (
        ("a.example.com", 443, True, True),
        ("a.b.example.com", 443, True, True),
        ("a.example.com", 8443, False, False),
        ("example.com", 443, True, False),
        ("badexample.com", 443, True, False),
        ("example.com.evil.net", 443, True, False),
        ("x.lan", 8443, False, True),
        ("x.lan", 443, True, False),
    ):
        assert allowed.covers(host, port, default_port=default) is wanted, (host, port)
    assert allowed.names("one.example.org", 443, default_port=True)


@pytest.fixture
def papers(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context and the file of the authority that signed it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=alerts.lan", "-addext", "subjectAltName=DNS:alerts.lan"]
    new = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *new, "-keyout", str(key), "-out", str(certificate), *subject]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


async def test_tls_checks_the_name_that_was_asked_for_although_the_address_is_pinned(
    papers: tuple[ssl.SSLContext, Path],
) -> None:
    context, authority = papers
    async with server(tls=context) as port:
        trusting = ssl.create_default_context(cafile=str(authority))
        names = (f"alerts.lan:{port}", f"other.lan:{port}")
        async with outbound(*names, resolve=resolving(["127.0.0.1"]), tls=trusting) as out:
            assert (await out.request("GET", f"https://alerts.lan:{port}/")).status == 200
            with pytest.raises(NotReady, match="certificate is not trusted"):
                await out.request("GET", f"https://other.lan:{port}/")
        async with outbound(*names, resolve=resolving(["127.0.0.1"])) as out:
            with pytest.raises(NotReady, match="certificate is not trusted"):
                await out.request("GET", f"https://alerts.lan:{port}/")
