-- Proposals by their words, title before description (apps/core/search.py).
ALTER TABLE governance_proposal ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('simple', title), 'A')
    || setweight(to_tsvector('english', title), 'B')
    || setweight(to_tsvector('simple', description), 'C')
    || setweight(to_tsvector('english', description), 'D')
) STORED;
CREATE INDEX governance_proposal_search ON governance_proposal USING gin (search);
