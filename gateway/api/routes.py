"""The routes: which path is which resource."""

from __future__ import annotations

from typing import Final

from gateway.api import (
    alarms,
    auth,
    automation,
    devices,
    extensions,
    machine,
    notifications,
    operations,
    plugins,
    products,
    stream,
    telemetry,
    users,
)
from gateway.api.views import Resource

PREFIX: Final = "/api/v1"

LOGIN: Final = f"{PREFIX}/auth/login"
"""The one path under the prefix that takes no token."""

ROUTES: Final[dict[str, type[Resource]]] = {
    LOGIN: auth.LoginView,
    f"{PREFIX}/auth/logout": auth.LogoutView,
    f"{PREFIX}/auth/me": auth.MeView,
    f"{PREFIX}/users": users.UsersView,
    f"{PREFIX}/users/{{user_id}}": users.UserView,
    f"{PREFIX}/roles": users.RolesView,
    f"{PREFIX}/roles/{{role_id}}": users.RoleView,
    f"{PREFIX}/products": products.ProductsView,
    f"{PREFIX}/products/{{product_id}}": products.ProductView,
    f"{PREFIX}/devices": devices.DevicesView,
    f"{PREFIX}/devices/{{device_id}}": devices.DeviceView,
    f"{PREFIX}/devices/{{device_id}}/credentials": devices.CredentialsView,
    f"{PREFIX}/devices/{{device_id}}/commands": devices.CommandsView,
    f"{PREFIX}/devices/{{device_id}}/commands/{{command_id}}": devices.CommandView,
    f"{PREFIX}/devices/{{device_id}}/properties": telemetry.PropertiesView,
    f"{PREFIX}/devices/{{device_id}}/history": telemetry.HistoryView,
    f"{PREFIX}/devices/{{device_id}}/events": telemetry.EventsView,
    f"{PREFIX}/dead-letters": telemetry.DeadLettersView,
    f"{PREFIX}/listeners": machine.ListenersView,
    f"{PREFIX}/extensions": extensions.ExtensionsView,
    f"{PREFIX}/extensions/{{extension}}/{{path}}": extensions.ExtensionView,
    f"{PREFIX}/plugins": plugins.PluginsView,
    f"{PREFIX}/plugins/{{plugin_id}}": plugins.PluginView,
    f"{PREFIX}/plugins/{{plugin_id}}/versions/{{version}}": plugins.PluginVersionView,
    f"{PREFIX}/plugins/{{plugin_id}}/grants": plugins.GrantsView,
    f"{PREFIX}/plugins/{{plugin_id}}/activate": plugins.ActivateView,
    f"{PREFIX}/plugins/{{plugin_id}}/rollback": plugins.RollbackView,
    f"{PREFIX}/plugins/{{plugin_id}}/disable": plugins.DisableView,
    f"{PREFIX}/plugins/{{plugin_id}}/enable": plugins.EnableView,
    f"{PREFIX}/plugins/{{plugin_id}}/shadow": plugins.ShadowView,
    f"{PREFIX}/plugins/{{plugin_id}}/promote": plugins.PromoteView,
    f"{PREFIX}/plugins/{{plugin_id}}/decode": plugins.DecodeView,
    f"{PREFIX}/plugins/{{plugin_id}}/encode": plugins.EncodeView,
    f"{PREFIX}/plugins/{{plugin_id}}/try": plugins.TryView,
    f"{PREFIX}/plugins/{{plugin_id}}/call": plugins.CallView,
    f"{PREFIX}/rules": automation.RulesView,
    f"{PREFIX}/rules/{{name}}": automation.RuleView,
    f"{PREFIX}/rules/{{name}}/restart": automation.RuleRestartView,
    f"{PREFIX}/scenes": automation.ScenesView,
    f"{PREFIX}/scenes/{{scene}}": automation.SceneView,
    f"{PREFIX}/scenes/{{scene}}/runs": automation.SceneRunsView,
    f"{PREFIX}/scenes/{{scene}}/runs/{{run_id}}": automation.SceneRunView,
    f"{PREFIX}/scenes/{{scene}}/runs/{{run_id}}/cancel": automation.SceneRunCancelView,
    f"{PREFIX}/schedules": automation.SchedulesView,
    f"{PREFIX}/schedules/{{schedule_id}}": automation.ScheduleView,
    f"{PREFIX}/notifications": notifications.NotificationsView,
    f"{PREFIX}/notifications/channels": notifications.ChannelsView,
    f"{PREFIX}/notifications/{{notification_id}}": notifications.NotificationView,
    f"{PREFIX}/alarms": alarms.AlarmsView,
    f"{PREFIX}/alarms/{{alarm_id}}": alarms.AlarmView,
    f"{PREFIX}/alarms/{{alarm_id}}/ack": alarms.AlarmAckView,
    f"{PREFIX}/alarms/{{alarm_id}}/clear": alarms.AlarmClearView,
    f"{PREFIX}/audit": alarms.AuditView,
    f"{PREFIX}/audit/verify": alarms.AuditVerifyView,
    f"{PREFIX}/stream": stream.StreamView,
    "/health": operations.HealthView,
    "/metrics": operations.MetricsView,
}
