"""What an operator does beside a running gateway: look over a configuration, users, the database's schema."""
