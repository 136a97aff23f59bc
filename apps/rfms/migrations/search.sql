-- Requests by their words, title before objective (apps/core/search.py).
ALTER TABLE rfms_rfm ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', title), 'A')
    || setweight(to_tsvector('english', title), 'B')
    || setweight(to_tsvector('simple', coalesce(spec ->> 'objective', '')), 'C')
    || setweight(to_tsvector('english', coalesce(spec ->> 'objective', '')), 'D')
) STORED;
CREATE INDEX rfms_rfm_search ON rfms_rfm USING gin (search);
