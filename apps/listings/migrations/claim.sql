-- listings_claim: those of these queries that are due and that no other worker has, from now on
-- this worker's; with what it needs to have them computed and to settle them. `payer`: the account
-- that each is held on, as "pid/purpose". Left alone is what may expire on its way to the nodes: one
-- that still took it would have counted its rows for an answer that the others refuse.
CREATE OR REPLACE FUNCTION listings_claim(ids uuid[], now timestamptz, lease_margin_s int)
RETURNS TABLE (
    query uuid, buyer uuid, buyer_pid text, payer text, query_rows int, price bigint, hold uuid, ticket text,
    sealed bytea, listing uuid, slug text, dao uuid, payee uuid, payee_pid text,
    job uuid, job_name text, job_attempt int, job_descriptor jsonb
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH waiting AS MATERIALIZED (
        SELECT q.id, q.job_id FROM listings_query q
        WHERE q.id = ANY(ids) AND q.ended_at IS NULL AND q.expires_at > now + interval '5 seconds'
        ORDER BY q.id FOR UPDATE SKIP LOCKED
    ), due AS MATERIALIZED (
        SELECT j.id FROM compute_job j
        WHERE j.id IN (SELECT w.job_id FROM waiting w)
            AND (j.state = 'queued' AND j.due_at <= now
                OR j.state = 'running' AND j.lease_until <= now)
        ORDER BY j.id FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE compute_job j
        SET state = 'running', attempt = j.attempt + 1, lease_until = now
            + make_interval(secs => (j.descriptor ->> 'deadline_s')::int + lease_margin_s)
        FROM due WHERE j.id = due.id
        RETURNING j.id, j.job_id, j.attempt, j.descriptor
    ), marked AS (
        UPDATE listings_query q
        SET state = 'running', timeline = q.timeline || jsonb_build_object('state', 'running',
            'at', to_char(now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'),
            'attempt', c.attempt, 'together', (SELECT count(*) FROM due))
        FROM claimed c WHERE q.job_id = c.id
        RETURNING q.*
    )
    SELECT m.id, m.buyer_id, b.pid::text,
        coalesce(o.pid || '/' || a.purpose, b.pid || '/main'), m.rows, m.price_micro, m.hold_id, m.ticket_id::text,
        m.upload, l.id, l.slug::text, d.id, p.id, p.pid::text,
        c.id, c.job_id::text, c.attempt, c.descriptor
    FROM marked m
    JOIN claimed c ON c.id = m.job_id
    JOIN accounts_party b ON b.id = m.buyer_id
    JOIN listings_listing l ON l.id = m.listing_id
    JOIN subdaos_dao d ON d.id = l.dao_id
    JOIN accounts_party p ON p.id = d.party_id
    LEFT JOIN listings_subscription s ON s.id = m.subscription_id
    LEFT JOIN wallets_account a ON a.id = s.account_id
    LEFT JOIN accounts_party o ON o.id = a.owner_id
    ORDER BY m.created_at, m.id;
END $$;
