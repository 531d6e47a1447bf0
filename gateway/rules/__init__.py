"""Rules and scenes: users' Lua, run in killable worker processes. The only room that knows Lua."""
