"""Looks over everything that a start would read, and starts nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from gateway.api.config import HttpConfig
from gateway.api.server import tls_context
from gateway.app.listeners import Entry, read_entry
from gateway.app.notifications import made, read_channel
from gateway.app.products import declared_products
from gateway.app.sinks import read_sink
from gateway.config import GatewayConfig, Loaded
from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError, GatewayError
from gateway.core.outbound import AiohttpOutbound
from gateway.extensions.discovery import extension_manager, listener_kinds, notifier_kinds, sink_kinds
from gateway.framing.spec import FramingSpec
from gateway.listeners.tls import TlsConfig, server_context
from gateway.notify.channel import problem_of
from gateway.rules.check import check_rules, check_scenes
from gateway.things.model import Product
from gateway.wasm.area import PluginArea
from gateway.wasm.plugins import PluginHost
from gateway.wasm.stages import Stages


class Finding(NamedTuple):
    """One thing that was looked at."""

    ok: bool
    what: str
    detail: str = ""


def check_all(loaded: Loaded) -> list[Finding]:
    """Every finding, in the order of a start."""
    return list(_findings(loaded))


def _findings(loaded: Loaded) -> Iterator[Finding]:
    config = loaded.config
    yield Finding(ok=True, what="configuration")
    yield _address("server", config.server.bind)
    if config.http.enabled:
        yield _http(config.http)
    try:
        area = PluginArea.open(config.plugins, loaded.path(config.server.data_dir))
    except ConfigError as failure:
        yield Finding(ok=False, what="plugins", detail=str(failure))
        area = None
    dirs = [loaded.path(path) for path in config.plugins.dirs]
    plugins = PluginHost(config.wasm, dirs, None, SystemClock(), area=area)
    try:
        plugins.load_all()
        for status in plugins.plugins():
            passed = f"{status.vectors_passed} vectors pass" if status.state == "running" else status.reason
            usable = status.state in {"running", "waiting", "disabled"}  # a product that names it says more below
            yield Finding(usable, f"plugin {status.id} {status.version}".rstrip(), passed)
        products: dict[str, Product] = {}
        try:
            products = {product.id: product for product in declared_products(loaded)}
        except GatewayError as failure:
            yield Finding(ok=False, what="products", detail=str(failure))
        yield from _stages(config, plugins)
        for product in products.values():
            yield _product(product, plugins, frozenset(config.stages))
        yield from _edges(config, _framing_of(products, plugins))
        yield from _channels(config, plugins)
    finally:
        plugins.close()
    rules = replace(config.rules, directory=str(loaded.path(config.rules.directory)))
    scenes = replace(config.scenes, directory=str(loaded.path(config.scenes.directory)))
    yield from _directory("rules", rules.directory, named="rules" in loaded.named)
    for name, error in check_rules(rules):
        yield Finding(not error, f"rule {name}", error)
    yield from _directory("scenes", scenes.directory, named="scenes" in loaded.named)
    for name, error in check_scenes(scenes):
        yield Finding(not error, f"scene {name}", error)


def _edges(config: GatewayConfig, framing_of: Callable[[str], FramingSpec | None]) -> Iterator[Finding]:
    extensions = extension_manager()
    kinds = listener_kinds(extensions)
    for name, entry in config.listeners.items():
        try:
            yield _listener(name, read_entry(name, entry, kinds, framing_of))
        except GatewayError as failure:
            yield Finding(ok=False, what=f"listener {name}", detail=str(failure))
    for name, entry in config.sinks.items():
        try:
            read_sink(name, entry, sink_kinds(extensions))
            yield Finding(ok=True, what=f"sink {name}")
        except GatewayError as failure:
            yield Finding(ok=False, what=f"sink {name}", detail=str(failure))


def _channels(config: GatewayConfig, plugins: PluginHost) -> Iterator[Finding]:
    """Whether each could deliver as things stand: its plugin, its grant, its hosts."""
    try:
        outbound = AiohttpOutbound(config.outbound)
    except ConfigError as failure:
        yield Finding(ok=False, what="outbound", detail=str(failure))
        return
    kinds = notifier_kinds(extension_manager())
    for name, entry in config.notify.items():
        try:
            kind, settings = read_channel(name, entry, kinds)
            problem = problem_of(made(name, kind, settings, outbound, plugins, SystemClock()))
        except GatewayError as failure:
            problem = str(failure)
        yield Finding(ok=not problem, what=f"channel {name}", detail=problem)


def _address(section: str, host: str) -> Finding:
    """Whether a listener could bind to the address: found by asking for any free port of it."""
    what = f"{section} bind {host}"
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
    except (OSError, UnicodeError) as failure:
        why = getattr(failure, "strerror", None) or failure
        return Finding(ok=False, what=what, detail=f"{why}; name an address of this machine, or 127.0.0.1")
    return Finding(ok=True, what=what)


def _http(config: HttpConfig) -> Finding:
    try:
        encrypted = tls_context(config) is not None
    except ConfigError as failure:
        return Finding(ok=False, what="http", detail=str(failure))
    return Finding(ok=True, what="http", detail="TLS" if encrypted else "without TLS")


def _listener(name: str, entry: Entry) -> Finding:
    """A kind that an extension brings need not have these keys."""
    tls, bind = getattr(entry.config, "tls", None), getattr(entry.config, "bind", None)
    if isinstance(tls, TlsConfig):
        server_context(tls, f"listeners.{name}")
    if isinstance(bind, str):
        address = _address(f"listener {name}", bind)
        if not address.ok:
            return address
    return Finding(ok=True, what=f"listener {name}")


def _directory(what: str, directory: str, *, named: bool) -> Iterator[Finding]:
    """A missing folder is a mistake where the file names the section; without, there are simply no such files."""
    if not Path(directory).is_dir():
        yield Finding(ok=not named, what=f"{what} directory", detail=f"{directory} is not a directory")


def _stages(config: GatewayConfig, plugins: PluginHost) -> Iterator[Finding]:
    for name, entry in config.stages.items():
        try:
            with closing(Stages({name: entry}, plugins)) as stages:
                stages.start()
        except GatewayError as failure:
            yield Finding(ok=False, what=f"stage {name}", detail=str(failure))
        else:
            yield Finding(ok=True, what=f"stage {name}", detail=f"plugin {entry.plugin}, {entry.place} the codec")


def _product(product: Product, plugins: PluginHost, stages: frozenset[str]) -> Finding:
    what = f"product {product.id}"
    unknown = [name for name in product.stages if name not in stages]
    if unknown:
        detail = f"stages: there is no [stages.{unknown[0]}]; known are: {', '.join(sorted(stages)) or 'none'}"
        return Finding(ok=False, what=what, detail=detail)
    if product.plugin_id is None:
        return Finding(ok=True, what=what, detail="has no codec plugin")
    try:
        plugins.codec(product.plugin_id)
    except GatewayError as failure:
        return Finding(ok=False, what=what, detail=str(failure))
    return Finding(ok=True, what=what)


def _framing_of(products: dict[str, Product], plugins: PluginHost) -> Callable[[str], FramingSpec | None]:
    def framing(product_id: str) -> FramingSpec | None:
        product = products.get(product_id)
        if product is None:
            raise ConfigError(f"no product {product_id!r} in the file; one made through the API is fine")
        return None if product.plugin_id is None else plugins.framing(product.plugin_id)

    return framing
