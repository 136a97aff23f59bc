"""Full-text search by PostgreSQL's own dictionaries, best match first.

A searched table has a stored column `search`, a tsvector that the database itself keeps up (made by
a migration of the table's app, with a GIN index). No model knows it, so that no page carries it
along. Its words stand there twice: as they are written, so that a word's beginning finds it while
somebody is still typing, and stemmed, so that "predictions" finds "predicting". All words of a
question must occur.
"""

from __future__ import annotations

import re
from typing import Any

from django.db.models import BooleanField, FloatField, QuerySet
from django.db.models.expressions import RawSQL

WORDS_MAX = 8
WORD_LENGTH_MAX = 64
# Letters and digits only: nothing that to_tsquery would read as an operator.
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """`Breast-mass!` → ["Breast", "mass"]: the first WORDS_MAX of them."""
    return [word[:WORD_LENGTH_MAX] for word in _WORD.findall(text)[:WORDS_MAX]]


def matching(rows: QuerySet[Any], text: str) -> QuerySet[Any]:
    """The rows in whose `search` every word of `text` occurs, best first; none for no words.

    A match in the name weighs more than one in the description (setweight in the migration).
    """
    asked = words(text)
    if not asked:
        return rows.none()
    one = "(to_tsquery('simple', %s) || to_tsquery('english', %s))"
    query = " && ".join([one] * len(asked))
    given = [form for word in asked for form in (f"{word}:*", word)]
    column = f'"{rows.model._meta.db_table}"."search"'
    return rows.filter(RawSQL(f"{column} @@ ({query})", given, BooleanField())).order_by(
        RawSQL(f"ts_rank({column}, {query})", given, FloatField()).desc(), "-pk"
    )
