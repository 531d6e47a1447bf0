"""Products that the configuration declares, with the thing models they name."""

from __future__ import annotations

from gateway.config import Loaded, ProductEntry
from gateway.core.scope import DEFAULT_TENANT
from gateway.things.files import load_model
from gateway.things.model import Product, ThingModel


def declared_products(loaded: Loaded) -> list[Product]:
    """Every `[products.ID]` as a product of the first tenant. Raises ConfigError naming file and place."""
    return [_product(loaded, product_id, entry) for product_id, entry in loaded.config.products.items()]


def _product(loaded: Loaded, product_id: str, entry: ProductEntry) -> Product:
    model = ThingModel() if entry.model is None else load_model(loaded.path(entry.model))
    return Product(
        tenant_id=DEFAULT_TENANT,
        id=product_id,
        name=entry.name or product_id,
        plugin_id=entry.plugin,
        stages=entry.stages,
        registration=entry.registration,
        authentication=entry.authentication,
        model=model,
        mapping=entry.mapping,
        retention_days=entry.retention_days,
        enabled=entry.enabled,
        source="file",
    )
