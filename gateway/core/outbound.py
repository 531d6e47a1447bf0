"""The gateway's one way out over HTTP: who may be asked, how long, how much comes back.

Owns the allow-list, the guard against addresses inside the operator's network and every bound of a request. Knows no
caller, no retry and no secret: an error names hosts and configuration keys, never a path, a query or a header's value.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
from typing_extensions import override

from gateway.core.errors import ConfigError, NotReady, Rejected

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from yarl import URL

Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host name, as text. Raises OSError."""

_SCHEMES: Final = {"https": 443, "http": 80}
_ENTRY: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:/@?#\s]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_FORBIDDEN_IN_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS: Final = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that frame or route a message; who sets them could smuggle a second one."""
_METADATA: Final = tuple(
    ipaddress.ip_network(block)
    for block in ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128")
)
"""Where clouds hand a machine its credentials, or rule it: never asked, by no name and no entry.

Source: RFC 3927 (which AWS, Azure, Google, Oracle and OpenStack use), and what Alibaba Cloud, Azure, AWS and Google
document of their other addresses.
"""
_WRAPPED: Final = tuple(ipaddress.ip_network(block) for block in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"))
"""IPv6 that holds an IPv4 address in its last 32 bits. Source: RFC 6052 2.1, RFC 8215, RFC 4291 2.5.5.1."""
_INNER: Final = tuple(ipaddress.ip_network(block) for block in ("64:ff9b:1::/48", "::/96", "fec0::/10", "192.0.0.0/24"))
"""Not of the public Internet, which `ipaddress` does not say of all of them. Source: RFC 8215, RFC 4291 2.5.5.1,
RFC 3879, RFC 6890 2.2.2."""
_CHUNK_BYTES: Final = 16 * 1024


class OutboundConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that the gateway itself makes over HTTP; nothing leaves until `allow` names its host.

    allow: hosts that may be asked, as `host`, `host:port` or `*.example.com`; without a port the scheme's own (443).
        A pattern never reaches a private address; a host named in full does, and a link-local one only by its address.
        Where clouds keep a machine's credentials (169.254.0.0/16 and others) nothing is ever asked.
    allow_http: also without TLS; to a loopback address that is always allowed.
    connect_timeout_s: of the connection and its TLS; the time of the whole request is its caller's.
    concurrency: requests under way at once.
    max_waiting: requests that may wait for their turn; over it one is refused, to be made again later.
    max_request_bytes: the largest body that is sent.
    max_response_bytes: of a body that is kept; the rest is not read, and the answer says that it was cut.
    max_header_bytes: all headers of a request together.
    """

    allow: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=260)], ...] = ()
    allow_http: bool = False
    connect_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 256
    max_request_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**30)] = 1024 * 1024
    max_response_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**30)] = 1024 * 1024
    max_header_bytes: Annotated[int, msgspec.Meta(ge=64, le=64 * 1024)] = 8 * 1024


class Reply(NamedTuple):
    """What a server answered. Header names are in lower case; `cut` says that the body was longer."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False


class Outbound(Protocol):
    """Asks servers outside."""

    def check(self, url: str) -> None:
        """Raise what `request` would before it connects: ConfigError naming the key to set, Rejected for no URL."""
        ...

    async def request(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        """Make one request and return its answer, whatever its status; a redirect is an answer and is not followed.

        Raises ConfigError where the allow-list or the address forbids it (the text names the key), Rejected for what
        is no request, NotReady where there was no connection or no answer in time: the server may have had it or not.
        """
        ...


class AllowList:
    """The hosts of `[outbound] allow`, parsed."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        """Raises ConfigError naming the entry."""
        self._exact: set[tuple[str, int | None]] = set()
        self._below: set[tuple[str, int | None]] = set()
        for entry in entries:
            self._add(entry)

    def names(self, host: str, port: int, *, default_port: bool) -> bool:
        """Whether the host is named in full."""
        return (host, port) in self._exact or (default_port and (host, None) in self._exact)

    def covers(self, host: str, port: int, *, default_port: bool) -> bool:
        """Whether a pattern covers the host: a name of one or more labels below the pattern's."""
        labels = host.split(".")
        parents = {".".join(labels[at:]) for at in range(1, len(labels))}
        return any(parent in parents and (at == port or (at is None and default_port)) for parent, at in self._below)

    def _add(self, entry: str) -> None:
        text = entry.removeprefix("*.")
        found = _ENTRY.fullmatch(text)
        port = None if found is None or found["port"] is None else int(found["port"])
        if found is None or "*" in text or (port is not None and not 0 < port < 65_536):
            raise ConfigError(
                f"[outbound] allow: {entry!r} is no host; write `host`, `host:port`, `[v6]:port` or `*.example.com`"
            )
        address = _address(_plain_host(found["host"]))
        if address is not None and _is_metadata(address):
            raise ConfigError(
                f"[outbound] allow: {entry!r} is where clouds keep credentials, and is never asked; remove it"
            )
        (self._below if entry.startswith("*.") else self._exact).add((_plain_host(found["host"]), port))


class AiohttpOutbound(Outbound):
    """The port over aiohttp. Proxies, cookies and credentials of the environment are ignored."""

    def __init__(
        self, config: OutboundConfig, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Open nothing yet. `tls`: whom to trust, by default the system's authorities. Raises ConfigError."""
        self._config = config
        self._allowed = AllowList(config.allow)
        self._resolve = resolve or _looked_up
        self._tls = tls
        self._turn = asyncio.Semaphore(config.concurrency)
        self._session: ClientSession | None = None
        self.under_way = 0
        """Requests that have been asked for and not answered, waiting ones included."""

    @override
    def check(self, url: str) -> None:
        self._target(url)

    @override
    async def request(
        self,
        method: Method,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        target = self._target(url)
        check_headers(headers or {}, self._config.max_header_bytes)
        if len(body) > self._config.max_request_bytes:
            raise Rejected(f"the body is larger than [outbound] max_request_bytes = {self._config.max_request_bytes}")
        if self.under_way >= self._config.concurrency + self._config.max_waiting:
            raise NotReady("too many requests wait to leave; see [outbound] concurrency and max_waiting")
        self.under_way += 1
        where = f"{target.host}:{target.port}"
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                return await self._exchange(method, target, where, headers or {}, body)
        except TimeoutError as late:
            raise NotReady(f"{where} did not answer within {timeout_s:g} s") from late
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        """Close what is open; the next request would open it again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _exchange(
        self, method: Method, target: URL, where: str, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        from aiohttp import ClientError  # noqa: PLC0415 - what never asks anybody need not load a client

        sent = {"Accept-Encoding": "identity", "User-Agent": "flux-gateway", **headers}
        try:
            async with self._connected().request(
                method, target, headers=sent, data=body or None, allow_redirects=False
            ) as response:
                kept, cut = await _read(response, self._config.max_response_bytes)
                return Reply(response.status, _plain_headers(response), kept, cut)
        except UnicodeError:
            raise Rejected(
                f"{where[:80]}: the host's name cannot be looked up; a label has 1 to 63 characters"
            ) from None
        except (ClientError, ConnectionError, ssl.SSLError, socket.gaierror) as failure:
            # The library's text may hold the whole URL, and with it the token that many services put there.
            raise NotReady(f"{where}: {_reason(failure)}") from None

    def _target(self, url: str) -> URL:
        """The parsed URL that is then asked for, and no other reading of the same text."""
        from yarl import URL  # noqa: PLC0415 - see above

        try:
            target = URL(url)
            host, port = _plain_host(target.raw_host or ""), target.port
        except (ValueError, TypeError):
            raise Rejected("the URL cannot be read; write https://host/path") from None
        if target.scheme not in _SCHEMES or not host or port is None:
            raise Rejected("the URL must begin with https:// (or http://) and a host")
        if target.user is not None or target.password is not None:
            raise Rejected("the URL must not carry a user or a password; send them in a header")
        if _address(host) is None and host.rpartition(".")[2].isdigit():
            # The C library reads 2852039166 as 169.254.169.254, and a client may ask no resolver for it.
            raise Rejected("the URL's host is no name; write an IPv4 address as four numbers, such as 192.0.2.1")
        self._check_host(target.scheme, host, port)
        return target.with_fragment(None)

    def _check_host(self, scheme: str, host: str, port: int) -> None:
        address = _address(host)
        if address is not None and _is_metadata(address):
            raise ConfigError(f"{host} is where clouds keep credentials, and is never asked; change the URL")
        if scheme == "http" and not self._config.allow_http and not _is_loopback(host, address):
            raise ConfigError(f"{host} is asked over http; use https, or set [outbound] allow_http = true")
        default = port == _SCHEMES[scheme]
        named = self._allowed.names(host, port, default_port=default)
        if not named and (address is not None or not self._allowed.covers(host, port, default_port=default)):
            entry = f"[{host}]" if address is not None and address.version == 6 else host
            entry = entry if default else f"{entry}:{port}"
            raise ConfigError(
                f'{entry} is not on the list of hosts that may be asked; add "{entry}" to [outbound] allow'
            )

    async def _addresses(self, host: str, port: int) -> list[str]:
        """The addresses of an allowed host that may be connected to; what is checked here is what is connected to."""
        found = [text for text in await self._resolve(host, port) if not _is_metadata(ipaddress.ip_address(text))]
        if not found:
            raise ConfigError(f"{host} resolves to where clouds keep credentials, which is never asked; change the URL")
        if any(self._allowed.names(host, port, default_port=port == at) for at in _SCHEMES.values()):
            good = [text for text in found if not _needs_its_own_entry(ipaddress.ip_address(text))]
            advice = "name the address itself in [outbound] allow if that is meant"
        else:
            good = [text for text in found if is_public(ipaddress.ip_address(text))]
            advice = f'name the host in full, as "{host}", in [outbound] allow if that is meant'
        if not good:
            raise ConfigError(f"{host} resolves to an address of an inner network; {advice}")
        return good

    def _connected(self) -> ClientSession:
        if self._session is None:
            self._session = _session(self._addresses, self._tls, self._config)
        return self._session


def is_public(address: Address) -> bool:
    """Whether an address is of the public Internet, looking through the ways to wrap an IPv4 address in IPv6.

    Source: RFC 6890 (special-purpose registries), RFC 4291 2.5.5, RFC 6052, RFC 3056.
    """
    inner = _unwrapped(address)
    if _within(address, _INNER) or _within(inner, _INNER) or _is_metadata(address):
        return False
    return inner.is_global and not inner.is_multicast


def check_headers(headers: Mapping[str, str], most_bytes: int) -> None:
    """Raise Rejected for a header that is none, that would break out of its line, or that frames the message.

    Source: RFC 9110, 5.1 and 5.5.
    """
    total = 0
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise Rejected("a header's name must be a token: letters, digits and -")
        if name.lower() in _OURS:
            raise Rejected(f"the header {name} is the gateway's to set")
        if _FORBIDDEN_IN_VALUE.search(value):
            raise Rejected(f"the value of the header {name} holds a line break or another control character")
        total += len(name) + len(value.encode(errors="surrogatepass"))
    if total > most_bytes:
        raise Rejected(f"the headers are larger than {most_bytes} bytes together")


def _session(addresses: Resolve, tls: ssl.SSLContext | None, config: OutboundConfig) -> ClientSession:
    from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector  # noqa: PLC0415 - see above
    from aiohttp.abc import AbstractResolver, ResolveResult  # noqa: PLC0415 - see above

    class Guarded(AbstractResolver):
        """Gives the connector only addresses that passed."""

        @override
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host,
                    host=text,
                    port=port,
                    family=socket.AF_INET6 if ":" in text else socket.AF_INET,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST,
                )
                for text in await addresses(_plain_host(host), port)
            ]

        @override
        async def close(self) -> None:
            """Hold nothing."""

    return ClientSession(
        connector=TCPConnector(
            # Without a cache the checked addresses are the ones connected to, each time.
            resolver=Guarded(),
            use_dns_cache=False,
            ssl=True if tls is None else tls,
            limit=config.concurrency,
        ),
        timeout=ClientTimeout(total=None, sock_connect=config.connect_timeout_s),
        cookie_jar=DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
    )


async def _looked_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A scope ("%eth0") names an interface of this machine and is no part of the address.
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


async def _read(response: ClientResponse, most: int) -> tuple[bytes, bool]:
    kept = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        kept += chunk
        if len(kept) > most:
            response.close()
            return bytes(kept[:most]), True
    return bytes(kept), False


def _plain_headers(response: ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _reason(failure: Exception) -> str:
    """What kept an answer from coming, in words of ours."""
    import aiohttp  # noqa: PLC0415 - see above

    match failure:
        case ssl.SSLError() | aiohttp.ClientSSLError():
            return "no TLS connection: it speaks no TLS, or its certificate is not trusted"
        case socket.gaierror() | aiohttp.ClientConnectorDNSError():
            return "the name has no address"
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case aiohttp.ClientConnectorError() | ConnectionRefusedError():
            return "no connection"
        case aiohttp.InvalidURL():
            return "the URL cannot be asked for"
        case _:
            return "the connection broke before the answer was whole"


def _plain_host(host: str) -> str:
    """A host in the one form that is compared: lower case, no brackets, no final dot."""
    text = host.strip("[]").lower().removesuffix(".")
    address = _address(text)
    return text if address is None else str(address)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str, address: Address | None) -> bool:
    return host == "localhost" or (address is not None and _unwrapped(address).is_loopback)


def _needs_its_own_entry(address: Address) -> bool:
    """Addresses that no name has a good reason to stand for: cloud metadata lives at a link-local one."""
    inner = _unwrapped(address)
    return (
        inner.is_link_local or inner.is_multicast or inner.is_unspecified or (inner.is_reserved and inner.version == 4)
    )


def _is_metadata(address: Address) -> bool:
    return _within(_unwrapped(address), _METADATA)


def _within(address: Address, blocks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    return any(address.version == block.version and address in block for block in blocks)


def _unwrapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if _within(address, _WRAPPED) and not (address.is_loopback or address.is_unspecified):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
