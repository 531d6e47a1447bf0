"""`listeners`: what the machine listens on, for the users of its first tenant."""

from __future__ import annotations

from gateway.api.parts import ListenerStatus
from gateway.api.views import Listing, Paging, Resource, cut, listed, requires, sorted_by
from gateway.identity.permissions import Permission


class ListenersView(Resource):
    """`/listeners`."""

    @requires(Permission.LISTENER_LIST)
    async def get(self, paging: Paging) -> Listing[ListenerStatus]:
        """List listeners with their counters."""
        _ = self.operator_scope
        found = sorted_by(self.parts.listeners.listeners(), paging, {"name": "name", "type": "type"})
        return listed(cut(found, paging), lambda status: status)
