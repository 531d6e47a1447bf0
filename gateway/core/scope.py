"""Who asks: the scope that every repository call takes, so that forgetting the tenant is a type error."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.errors import Forbidden

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Scope:
    """A tenant, the actor in it, and what the actor may do.

    actor: a user name, `device:<id>`, `rule:<name>` or `system`; stands in the audit log.
    """

    tenant_id: str
    actor: str
    permissions: frozenset[str] = field(default_factory=frozenset)

    def require(self, permission: str) -> None:
        """Raise Forbidden unless the actor has the permission; `*` grants all."""
        if permission not in self.permissions and "*" not in self.permissions:
            raise Forbidden(f"this needs the permission {permission}; ask an administrator to grant it")


def system_scope(actor: str = "system", tenant_id: str = DEFAULT_TENANT) -> Scope:
    """Scope of the gateway's own work."""
    return Scope(tenant_id, actor, frozenset({"*"}))
