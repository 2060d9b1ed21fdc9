"""PostgreSQL: URLs, tenant transactions, migrations."""
