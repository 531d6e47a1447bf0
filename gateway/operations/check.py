"""Looks over everything that a start would read, and starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from gateway.app.listeners import read_entry
from gateway.app.products import declared_products
from gateway.config import Loaded
from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError, GatewayError
from gateway.extensions.discovery import extension_manager, listener_kinds
from gateway.framing.spec import FramingSpec
from gateway.rules.check import check_rules, check_scenes
from gateway.things.model import Product
from gateway.wasm.plugins import PluginHost


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
    plugins = PluginHost(config.wasm, [loaded.path(path) for path in config.plugins.dirs], None, SystemClock())
    try:
        plugins.load_all()
        for status in plugins.plugins():
            passed = f"{status.vectors_passed} vectors pass" if status.state == "running" else status.reason
            yield Finding(status.state == "running", f"plugin {status.id} {status.version}".rstrip(), passed)
        products: dict[str, Product] = {}
        try:
            products = {product.id: product for product in declared_products(loaded)}
        except GatewayError as failure:
            yield Finding(ok=False, what="products", detail=str(failure))
        for product in products.values():
            yield _product(product, plugins)
        kinds, framing_of = listener_kinds(extension_manager()), _framing_of(products, plugins)
        for name, entry in config.listeners.items():
            try:
                read_entry(name, entry, kinds, framing_of)
                yield Finding(ok=True, what=f"listener {name}")
            except GatewayError as failure:
                yield Finding(ok=False, what=f"listener {name}", detail=str(failure))
    finally:
        plugins.close()
    for name, error in check_rules(replace(config.rules, directory=str(loaded.path(config.rules.directory)))):
        yield Finding(not error, f"rule {name}", error)
    for name, error in check_scenes(replace(config.scenes, directory=str(loaded.path(config.scenes.directory)))):
        yield Finding(not error, f"scene {name}", error)


def _product(product: Product, plugins: PluginHost) -> Finding:
    what = f"product {product.id}"
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
