"""Alarms: active or cleared, acknowledged or not (ISA-18.2 terms); one open alarm per device and rule."""
