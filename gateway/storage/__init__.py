"""Storage: tables, migrations, the journal writer and the repositories that implement the rooms' ports."""
