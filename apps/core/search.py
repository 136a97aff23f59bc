"""Full-text search by PostgreSQL's own dictionaries, best match first.

A searched table has a stored column `search`, a tsvector that the database itself keeps up (made by
a migration of the table's app, with a GIN index). No model knows it, so that no page carries it
along. Its words stand there twice: as they are written, so that a word's beginning finds it while
somebody is still typing, and stemmed, so that "predictions" finds "predicting". All words of a
question must occur.
"""

from __future__ import annotations

import re
from functools import reduce
from operator import and_
from typing import Any

from django.contrib.postgres.search import (
    SearchQuery,
    SearchRank,
    SearchVectorExact,
    SearchVectorField,
)
from django.db.models import Model, QuerySet
from django.db.models.expressions import Col

WORDS_MAX = 8
WORD_LENGTH_MAX = 64
# Of a word that stands nearly everywhere, ranking every match would cost more than the page.
RANKED_MAX = 300
# Letters and digits only: nothing that to_tsquery would read as an operator.
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """`Breast-mass!` → ["Breast", "mass"]: the first WORDS_MAX of them."""
    return [word[:WORD_LENGTH_MAX] for word in _WORD.findall(text)[:WORDS_MAX]]


def matching(rows: QuerySet[Any], text: str, *, of: type[Model] | None = None) -> QuerySet[Any]:
    """The rows in whose `search` every word of `text` occurs, best first; none for no words.

    A match in the name weighs more than one in the description (setweight in the migration). Of
    more than RANKED_MAX matches, the newest are ranked, and the others not found. With `of` the
    column is that of a table that the rows are joined with already, once.
    """
    asked = words(text)
    if not asked:
        return rows.none()
    query = reduce(and_, map(_either, asked))
    column = _column(of or rows.model)
    newest = rows.filter(SearchVectorExact(column, query)).order_by("-created_at", "-pk")
    ranked = rows.filter(pk__in=newest.values("pk")[:RANKED_MAX])
    return ranked.order_by(SearchRank(column, query).desc(), "-pk")


def _column(model: type[Model]) -> Col:
    """The column `search` of a model that does not know it."""
    field: Any = SearchVectorField()
    field.set_attributes_from_name("search")
    field.model = model
    return Col(model._meta.db_table, field)


def _either(word: str) -> Any:
    """The beginning of a word as it is written, or a word of the same stem."""
    begun = SearchQuery(f"{word}:*", config="simple", search_type="raw")
    return begun | SearchQuery(word, config="english", search_type="raw")
