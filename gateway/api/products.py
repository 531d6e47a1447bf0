"""`products`: kinds of devices with their thing models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from gateway.api.bodies import Body
from gateway.api.shapes import ProductShape, product_shape
from gateway.api.views import Listing, Paging, Resource, cut, listed, requires, sorted_by
from gateway.core.errors import Rejected
from gateway.core.scope import Scope
from gateway.identity.permissions import Permission
from gateway.things.model import FieldMapping, Product, ThingModel

_SORT = {"id": "id", "name": "name", "created_at": "created_at_ms", "updated_at": "updated_at_ms"}


class ProductBody(Body):
    """What a product is. `model` follows `schemas/thing-model.json`; `stages` are names of the configuration's."""

    name: Annotated[str, Field(max_length=200)] = ""
    plugin_id: Annotated[str, Field(max_length=64)] | None = None
    stages: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=8, default_factory=list)]
    registration: Literal["auto", "preregistered"] = "preregistered"
    authentication: Literal["optional", "required"] = "optional"
    model: dict[str, Any] = Field(default_factory=dict)
    mapping: Annotated[list[dict[str, Any]], Field(max_length=1000, default_factory=list)]
    retention_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    enabled: bool = True

    def product(self, scope: Scope, product_id: str) -> Product:
        """The product in the scope's tenant. Raises Rejected where the thing model is wrong."""
        return Product(
            tenant_id=scope.tenant_id,
            id=product_id,
            name=self.name,
            plugin_id=self.plugin_id,
            stages=tuple(self.stages),
            registration=self.registration,
            authentication=self.authentication,
            model=_typed("model", self.model, ThingModel),
            mapping=_typed("mapping", self.mapping, tuple[FieldMapping, ...]),
            retention_days=self.retention_days,
            enabled=self.enabled,
            source="api",
        )


class NewProductBody(ProductBody):
    """A product to make."""

    id: Annotated[str, Field(min_length=1, max_length=64)]


class ProductsView(Resource):
    """`/products`."""

    @requires(Permission.PRODUCT_LIST)
    async def get(self, paging: Paging, search: Annotated[str, Field(max_length=200)] = "") -> Listing[ProductShape]:
        """List products; `search` matches id and name."""
        sought = search.casefold()
        found = [
            product
            for product in self.parts.catalog.products(self.scope)
            if sought in product.id.casefold() or sought in product.name.casefold()
        ]
        return listed(cut(sorted_by(found, paging, _SORT), paging), product_shape)

    @requires(Permission.PRODUCT_MANAGE, status=201)
    async def post(self, body: NewProductBody) -> ProductShape:
        """Make a product."""
        _check_plugin(self, body.plugin_id)
        product = body.product(self.scope, body.id)
        return product_shape(await self.parts.catalog.create_product(self.scope, product))


class ProductView(Resource):
    """`/products/{product_id}`."""

    @requires(Permission.PRODUCT_LIST)
    async def get(self, product_id: str, /) -> ProductShape:
        """Show a product with its thing model."""
        return product_shape(self.parts.catalog.product(self.scope, product_id))

    @requires(Permission.PRODUCT_MANAGE)
    async def put(self, product_id: str, /, body: ProductBody) -> ProductShape:
        """Replace a product; one that a file declares is changed in the file."""
        _check_plugin(self, body.plugin_id)
        product = body.product(self.scope, product_id)
        return product_shape(await self.parts.catalog.replace_product(self.scope, product))

    @requires(Permission.PRODUCT_MANAGE)
    async def delete(self, product_id: str, /) -> None:
        """Delete a product without devices."""
        await self.parts.catalog.delete_product(self.scope, product_id)


def _check_plugin(view: Resource, plugin_id: str | None) -> None:
    """Raise Rejected for a plugin that no folder holds; one that does not run now is named all the same."""
    known = [status.id for status in view.parts.plugins.plugins()]
    if plugin_id is not None and plugin_id not in known:
        raise Rejected(f"plugin_id: there is no plugin {plugin_id!r}; known are: {', '.join(known) or 'none'}")


def _typed(field: str, data: object, kind: Any) -> Any:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as wrong:
        raise Rejected(f"{field}: {wrong}") from wrong
