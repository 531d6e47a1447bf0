import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes.listening import Listening

from gateway.core.errors import ConfigError
from gateway.listeners.tls import TlsConfig, server_context

FRAME = b"\x7ehello\x7e"


@dataclass(frozen=True)
class Papers:
    """A certificate authority and what it signed, in one directory."""

    where: Path

    def server(self, *, mutual: bool = False) -> TlsConfig:
        ca = str(self.where / "ca.pem") if mutual else None
        return TlsConfig(certificate=str(self.where / "server.pem"), key=str(self.where / "server.key"), client_ca=ca)

    def client(self, *, certificate: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.where / "ca.pem"))
        context.check_hostname = False
        if certificate is not None:
            context.load_cert_chain(self.where / f"{certificate}.pem", self.where / f"{certificate}.key")
        return context


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command: apt-get install openssl")
    where = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=where, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for authority in ("ca", "stranger_ca"):
        openssl("req", "-x509", *new_key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-subj", "/CN=ca")
    for name, authority in (("server", "ca"), ("device", "ca"), ("stranger", "stranger_ca")):
        openssl("req", *new_key[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", "2", "-out", f"{name}.pem",
        )  # fmt: skip
    return Papers(where)


async def test_frames_go_both_ways_over_tls(listening: Listening, papers: Papers) -> None:
    listener = await listening.start(tls=papers.server())
    listening.sink.react = lambda connection, frames: [connection.send(frame) for frame in frames]
    client = await listening.connect(ssl=papers.client())
    await client.send(FRAME * 1_000)
    assert await client.reader.readexactly(5_000) == b"hello" * 1_000
    await client.close()
    await listening.until(lambda: listening.sink.reasons)
    assert listening.sink.reasons == ["peer_closed"]
    assert (listener.stats.opened, listener.connections, listener.stats.bytes_in) == (1, 0, 7_000)


async def test_holding_works_over_tls(listening: Listening, papers: Papers) -> None:
    await listening.start(tls=papers.server())
    client = await listening.connect(ssl=papers.client())
    await listening.until(lambda: listening.sink.connections)
    connection = listening.sink.connections[0]
    connection.hold("pipeline")
    await client.send(FRAME)
    await asyncio.sleep(0.05)
    assert listening.sink.all_frames == []
    connection.release("pipeline")
    await listening.until(lambda: listening.sink.all_frames == [b"hello"])


async def test_a_frame_sent_with_the_last_of_the_handshake_is_not_lost(listening: Listening, papers: Papers) -> None:
    await listening.start(tls=papers.server())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = papers.client().wrap_bio(incoming, outgoing)
    client = await listening.connect()
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await client.send(outgoing.read())
            incoming.write(await client.reader.read(65536))
    tls.write(FRAME)
    await client.send(outgoing.read())
    await listening.until(lambda: listening.sink.all_frames == [b"hello"])


async def test_plain_bytes_at_a_tls_port_are_refused_and_counted(listening: Listening, papers: Papers) -> None:
    listener = await listening.start(tls=papers.server())
    plain = await listening.connect()
    await plain.send(FRAME * 100)
    await plain.rest()
    await listening.until(lambda: listener.connections == 0)
    assert listener.stats.refused == {"tls_handshake": 1}
    assert (listener.stats.opened, listening.sink.connections) == (0, [])
    neighbour = await listening.connect(ssl=papers.client())
    await neighbour.send(FRAME)
    await listening.until(lambda: listening.sink.all_frames == [b"hello"])


async def test_a_peer_that_leaves_during_the_handshake_is_forgotten(listening: Listening, papers: Papers) -> None:
    listener = await listening.start(tls=papers.server())
    for data in (b"", b"\x16\x03\x01"):
        client = await listening.connect()
        await client.send(data)
        await listening.until(lambda: listener.connections == 1)
        await client.close()
        await listening.until(lambda: listener.connections == 0)
    assert listener.stats.refused == {"tls_handshake": 2}


async def test_a_handshake_that_never_ends_is_refused(listening: Listening, papers: Papers) -> None:
    listener = await listening.start(tls=papers.server(), tls_handshake_timeout_s=0.05)
    client = await listening.connect()
    assert await client.rest() == b""
    await listening.until(lambda: listener.connections == 0)
    assert listener.stats.refused == {"tls_timeout": 1}


async def test_an_unfinished_handshake_does_not_keep_the_listener_from_stopping(
    listening: Listening, papers: Papers
) -> None:
    listener = await listening.start(tls=papers.server())
    await listening.connect()
    await listening.until(lambda: listener.connections == 1)
    await listener.stop()
    assert listener.stats.refused == {"shutdown": 1}


async def test_stopping_closes_tls_peers(listening: Listening, papers: Papers) -> None:
    listener = await listening.start(tls=papers.server())
    client = await listening.connect(ssl=papers.client())
    await listening.until(lambda: listening.sink.connections)
    await listener.stop()
    assert await client.rest() == b""
    assert listening.sink.reasons == ["shutdown"]


async def refused(attempt: Callable[[], Awaitable[bytes]]) -> bool:
    """Whether the gateway cut the peer off; TLS 1.3 tells a client only after its own handshake is done."""
    try:
        return await attempt() == b""
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.mark.parametrize("certificate", [None, "stranger"])
async def test_mutual_tls_refuses_who_shows_no_certificate_of_the_authority(
    listening: Listening, papers: Papers, certificate: str | None
) -> None:
    listener = await listening.start(tls=papers.server(mutual=True))

    async def attempt() -> bytes:
        client = await listening.connect(ssl=papers.client(certificate=certificate))
        await client.send(FRAME)
        return await client.rest()

    assert await refused(attempt)
    await listening.until(lambda: listener.stats.refused)
    assert listener.stats.refused == {"tls_handshake": 1}
    assert listening.sink.all_frames == []


async def test_mutual_tls_admits_a_certificate_of_the_authority(listening: Listening, papers: Papers) -> None:
    await listening.start(tls=papers.server(mutual=True))
    client = await listening.connect(ssl=papers.client(certificate="device"))
    await client.send(FRAME)
    await listening.until(lambda: listening.sink.all_frames == [b"hello"])


async def test_tls_1_1_is_not_spoken(papers: Papers) -> None:
    assert server_context(papers.server(), "listeners.l").minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("certificate", "key", "client_ca", "says"),
    [
        ("missing.pem", "server.key", None, r"tls\.certificate .*missing\.pem .*No such file"),
        ("server.key", "server.key", None, r"tls\.certificate .*server\.key .*PEM files that belong together"),
        ("server.pem", "device.key", None, r"KEY_VALUES_MISMATCH"),
        ("server.pem", "server.key", "missing.pem", r"tls\.client_ca .*missing\.pem: No such file"),
        ("server.pem", "server.key", "server.key", r"tls\.client_ca .*server\.key: "),
    ],
)
def test_files_that_are_no_good_are_named(
    papers: Papers, certificate: str, key: str, client_ca: str | None, says: str
) -> None:
    config = TlsConfig(
        certificate=str(papers.where / certificate),
        key=str(papers.where / key),
        client_ca=None if client_ca is None else str(papers.where / client_ca),
    )
    with pytest.raises(ConfigError, match=rf"^listeners\.l: cannot use .*{says}"):
        server_context(config, "listeners.l")
