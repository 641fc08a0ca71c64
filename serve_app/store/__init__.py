"""What has to be remembered, in SQL: SQLite by default, PostgreSQL for several nodes."""
