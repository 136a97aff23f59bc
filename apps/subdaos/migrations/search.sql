-- DAOs, and with them their models, by their words: name before objective (apps/core/search.py).
ALTER TABLE subdaos_dao ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', name), 'A')
    || setweight(to_tsvector('english', name), 'B')
    || setweight(to_tsvector('simple', coalesce(params ->> 'objective', '')), 'C')
    || setweight(to_tsvector('english', coalesce(params ->> 'objective', '')), 'D')
) STORED;
CREATE INDEX subdaos_dao_search ON subdaos_dao USING gin (search);
