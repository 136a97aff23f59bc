"""The processes of an embedded installation: PostgreSQL, Valkey, nodes, web, worker, beat."""
