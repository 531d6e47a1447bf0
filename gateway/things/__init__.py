"""Things: products, devices, thing models, sessions and commands. Knows no socket, no plugin, no database."""
