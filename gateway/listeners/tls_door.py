"""The door of a TLS listener: admits a peer before its handshake costs anything, and sees each handshake's end.

A server that is given the context itself tells nobody of a handshake that failed, and asks for no admission before.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import cast

from typing_extensions import override

from gateway.listeners.tcp_connection import TcpConnection, Wiring


class TlsDoor(asyncio.Protocol):
    """Lives from accept to the start of the handshake, then a TcpConnection takes the socket over."""

    __slots__ = ("_wiring",)

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast("asyncio.Transport", transport)
        connection = TcpConnection(self._wiring)
        if connection.admit(accepted):
            # A transport cannot be kept from reading the client's first bytes, a socket can.
            sock = socket.socket(fileno=os.dup(accepted.get_extra_info("socket").fileno()))
            self._wiring.supervisor.spawn(
                f"tls handshake of {connection.listener}", self._shake_hands(connection, sock)
            )
        accepted.abort()

    async def _shake_hands(self, connection: TcpConnection, sock: socket.socket) -> None:
        reason, detail = "tls_handshake", ""
        connection.handshake = asyncio.current_task()
        try:
            if connection.is_closing:
                sock.close()
                return
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._wiring.tls,
                ssl_handshake_timeout=self._wiring.limits.tls_handshake_timeout_s,
                ssl_shutdown_timeout=self._wiring.limits.linger_s,
            )
        except ConnectionAbortedError:
            reason = "tls_timeout"
        except ssl.SSLError as failure:
            detail = failure.reason or ""
        except OSError as failure:
            detail = failure.strerror or ""
        finally:
            connection.handshake = None
            if not connection.opened:
                connection.refuse(reason, detail)
