"""PostgreSQL says on these: a version has something to do; a query has ended."""

HELD_CHANNEL = "flai_held"
ENDED_CHANNEL = "flai_query"
