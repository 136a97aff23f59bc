"""Requests by their words, title before objective (apps/core/search.py), and by their hash."""

from django.db import migrations, models

FORWARD = """
ALTER TABLE rfms_rfm ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', title), 'A')
    || setweight(to_tsvector('english', title), 'B')
    || setweight(to_tsvector('simple', coalesce(spec ->> 'objective', '')), 'C')
    || setweight(to_tsvector('english', coalesce(spec ->> 'objective', '')), 'D')
) STORED;
CREATE INDEX rfms_rfm_search ON rfms_rfm USING gin (search);
"""
BACKWARD = "ALTER TABLE rfms_rfm DROP COLUMN search;"


class Migration(migrations.Migration):
    dependencies = [("rfms", "0001_initial")]

    operations = [
        migrations.RunSQL(FORWARD, BACKWARD),
        migrations.AddIndex("rfm", models.Index(fields=["spec_hash"], name="rfms_spec_hash")),
    ]
