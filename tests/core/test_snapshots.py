"""Rows that are put back, after the tables were emptied in whatever way."""

from __future__ import annotations

from django.core.management import call_command

from apps.core.clock import now
from apps.subdaos.models import Dao, SbgtCheckpoint
from tests.support import epochs
from tests.support.snapshots import Rows


def test_new_rows_never_get_the_ids_of_those_that_are_put_back(transactional_db: None) -> None:
    def give(dao: Dao) -> int:
        row = SbgtCheckpoint(dao=dao, party=dao.party, at=now(), points_micro=1, reason="round")
        row.save(force_insert=True)
        return int(row.pk)

    dao = epochs.subdao(now())
    last = give(dao)
    rows = Rows()
    call_command("flush", interactive=False, verbosity=0)
    assert not SbgtCheckpoint.objects.exists()
    rows.put_back()
    assert give(dao) == last + 1
