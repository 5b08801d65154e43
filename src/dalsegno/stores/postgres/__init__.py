"""PostgreSQL: many nodes on one database, one statement a commit."""
