"""TLS of a listener: from three file names to a server context. Knows no connection."""

from __future__ import annotations

import ssl

import msgspec

from gateway.core.errors import ConfigError


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files. With `client_ca`, a client must show a certificate that it signed (mutual TLS)."""

    certificate: str
    key: str
    client_ca: str | None = None


def server_context(config: TlsConfig, where: str) -> ssl.SSLContext:
    """Load the files; TLS 1.2 or newer. Raises ConfigError naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.certificate, config.key)
    except OSError as failure:
        raise ConfigError(
            f"{where}: cannot use tls.certificate {config.certificate} with tls.key {config.key}: "
            f"{_why(failure)}; both must be readable PEM files that belong together"
        ) from failure
    if config.client_ca is not None:
        try:
            context.load_verify_locations(config.client_ca)
        except OSError as failure:
            raise ConfigError(
                f"{where}: cannot use tls.client_ca {config.client_ca}: {_why(failure)}; "
                "it must be a readable PEM file of certificates"
            ) from failure
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _why(failure: OSError) -> str:
    if isinstance(failure, ssl.SSLError):
        return failure.reason or "no PEM data"
    return failure.strerror or type(failure).__name__
