"""Identity: users, roles, permissions, tokens and the audit log. Knows neither HTTP nor the database."""
