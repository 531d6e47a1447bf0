"""The permission codes: `<area>.<entity>.list` reads, `<area>.<entity>.manage` changes. `*` grants all."""

from __future__ import annotations

import enum
from typing import Final

from gateway.core.errors import Rejected

EVERYTHING: Final = "*"


class Permission(enum.StrEnum):
    """Every code that exists; a role can hold no other."""

    USER_LIST = "identity.user.list"
    USER_MANAGE = "identity.user.manage"
    ROLE_LIST = "identity.role.list"
    ROLE_MANAGE = "identity.role.manage"
    AUDIT_LIST = "identity.audit.list"
    PRODUCT_LIST = "things.product.list"
    PRODUCT_MANAGE = "things.product.manage"
    DEVICE_LIST = "things.device.list"
    DEVICE_MANAGE = "things.device.manage"
    CREDENTIAL_MANAGE = "things.credential.manage"
    HISTORY_LIST = "things.history.list"
    EVENT_LIST = "things.event.list"
    COMMAND_LIST = "things.command.list"
    COMMAND_MANAGE = "things.command.manage"
    DEAD_LETTER_LIST = "things.dead_letter.list"
    LISTENER_LIST = "listeners.listener.list"
    PLUGIN_LIST = "plugins.plugin.list"
    PLUGIN_MANAGE = "plugins.plugin.manage"
    EXTENSION_LIST = "extensions.route.list"
    EXTENSION_MANAGE = "extensions.route.manage"
    RULE_LIST = "rules.rule.list"
    RULE_MANAGE = "rules.rule.manage"
    SCENE_LIST = "rules.scene.list"
    SCENE_MANAGE = "rules.scene.manage"
    SCHEDULE_LIST = "rules.schedule.list"
    SCHEDULE_MANAGE = "rules.schedule.manage"
    NOTIFICATION_LIST = "notify.notification.list"
    NOTIFICATION_MANAGE = "notify.notification.manage"
    REPORT_LIST = "reports.report.list"
    REPORT_MANAGE = "reports.report.manage"
    ALARM_LIST = "alarms.alarm.list"
    ALARM_MANAGE = "alarms.alarm.manage"


def check_codes(codes: tuple[str, ...]) -> None:
    """Raise Rejected when a code is none of the declared ones."""
    known = {EVERYTHING, *Permission}
    for code in codes:
        if code not in known:
            raise Rejected(f"permissions: there is no permission {code!r}; known are {', '.join(sorted(known))}")


def covers(granted: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether whoever has `granted` may do everything that `wanted` allows."""
    return EVERYTHING in granted or wanted <= granted
