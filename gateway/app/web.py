"""Identity and the HTTP API, wired to the rooms."""

from __future__ import annotations

from pathlib import Path

from gateway import __version__
from gateway.api.application import create_app
from gateway.api.parts import Health, Listeners, Parts
from gateway.api.plugin_port import Plugins
from gateway.api.server import HttpServer
from gateway.app.automation import Automation
from gateway.app.traffic import Traffic
from gateway.config import GatewayConfig
from gateway.core.bus import Bus
from gateway.core.clock import Clock
from gateway.core.metrics import Samples
from gateway.extensions.discovery import Extensions
from gateway.identity.access import Access
from gateway.identity.logins import Logins
from gateway.identity.passwords import Passwords
from gateway.identity.throttle import LoginThrottle
from gateway.identity.tokens import Tokens, load_or_make_key
from gateway.identity.users import Users
from gateway.storage.audit import SqlAuditRepository
from gateway.storage.database import Database
from gateway.storage.history import SqlHistoryRepository
from gateway.storage.users import SqlTokenRepository, SqlUserRepository


class Identity:
    """Users and their tokens on one database; the command line uses it without a server."""

    def __init__(self, config: GatewayConfig, data_dir: Path, database: Database, clock: Clock) -> None:
        """Build; `tokens.load` before the first login."""
        rows = SqlUserRepository(database)
        self.audit = SqlAuditRepository(database)
        passwords = Passwords(config.identity)
        key = load_or_make_key(data_dir / "keys" / "token.key")
        self.tokens = Tokens(key, config.identity, clock, SqlTokenRepository(database))
        self.access = Access(config.identity, clock, rows, self.tokens)
        self.users = Users(rows, passwords, self.access, clock)
        throttle = LoginThrottle(config.identity, clock)
        self.logins = Logins(rows, passwords, self.tokens, throttle, self.audit)


def web_server(
    config: GatewayConfig,
    identity: Identity,
    traffic: Traffic,
    automation: Automation,
    *,
    database: Database,
    plugins: Plugins,
    listeners: Listeners,
    health: Health,
    bus: Bus,
    samples: Samples,
    clock: Clock,
    extensions: Extensions,
) -> HttpServer:
    """The server with every route, not yet listening."""
    parts = Parts(
        clock=clock,
        version=__version__,
        access=identity.access,
        logins=identity.logins,
        users=identity.users,
        audit=identity.audit,
        catalog=traffic.catalog,
        commands=traffic.commands,
        history=SqlHistoryRepository(database),
        alarms=automation.alarms,
        rules=automation.rules,
        scenes=automation.scenes,
        scene_runs=automation.scene_rows,
        schedules=automation.schedules,
        notifications=automation.notifications,
        reports=automation.reports,
        plugins=plugins,
        listeners=listeners,
        health=health,
        bus=bus,
        samples=samples,
        extensions=extensions,
    )
    return HttpServer(config.http, create_app(parts, config.http))
