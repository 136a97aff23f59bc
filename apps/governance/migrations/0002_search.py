"""Proposals by their words, title before description (apps/core/search.py), and by their hash."""

from django.db import migrations, models

FORWARD = """
ALTER TABLE governance_proposal ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', title), 'A')
    || setweight(to_tsvector('english', title), 'B')
    || setweight(to_tsvector('simple', description), 'C')
    || setweight(to_tsvector('english', description), 'D')
) STORED;
CREATE INDEX governance_proposal_search ON governance_proposal USING gin (search);
"""
BACKWARD = "ALTER TABLE governance_proposal DROP COLUMN search;"


class Migration(migrations.Migration):
    dependencies = [("governance", "0001_initial")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AddIndex("proposal", models.Index(fields=["payload_hash"], name="governance_payload_hash")),
    ]
