"""Notifications: channels to the outside, what waits in them, and how a message is tried until it is delivered."""
