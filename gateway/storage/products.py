"""Rows of products. Knows no thing model: it is a JSON document here."""

from __future__ import annotations

import sqlalchemy as sa
from typing_extensions import override

from gateway.core.errors import Conflict, NotFound
from gateway.core.scope import Scope
from gateway.storage.database import Database
from gateway.storage.rows import from_row, owned_row, upsert
from gateway.storage.tables import device, product
from gateway.things.model import Product
from gateway.things.ports import ProductRepository


class SqlProductRepository(ProductRepository):
    """Products in the database."""

    def __init__(self, database: Database) -> None:
        """Use an open database."""
        self._database = database

    @override
    async def all_products(self) -> list[Product]:
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(product).order_by(product.c.tenant_id, product.c.id))
            return [from_row(row, Product) for row in rows.mappings()]

    @override
    async def save_product(self, scope: Scope, product: Product) -> None:
        row = owned_row(scope, product)
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(scope, product.id))
            await transaction.execute(upsert(_table, row))
            verb = "create" if before is None else "update"
            await transaction.audit(verb, "product", product.id, before, row)

    @override
    async def delete_product(self, scope: Scope, product_id: str) -> None:
        async with self._database.write(scope) as transaction:
            before = await transaction.row(_one(scope, product_id))
            if before is None:
                raise NotFound(f"no product {product_id}")
            mine = (device.c.tenant_id == scope.tenant_id, device.c.product_id == product_id)
            devices = (
                await transaction.execute(sa.select(sa.func.count()).select_from(device).where(*mine))
            ).scalar_one()
            if devices:
                raise Conflict(f"product {product_id} still has {devices} devices: delete them first")
            await transaction.execute(
                sa.delete(_table).where(_table.c.tenant_id == scope.tenant_id, _table.c.id == product_id)
            )
            await transaction.audit("delete", "product", product_id, before, None)


_table = product


def _one(scope: Scope, product_id: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(_table).where(_table.c.tenant_id == scope.tenant_id, _table.c.id == product_id)
