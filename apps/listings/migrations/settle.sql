-- listings_settle: answered queries of one listing are paid in the open epoch, with receipts,
-- sealed outputs, leaves, events and calls; all of them, or none.
--
-- An answer other than 'settled' has written nothing: 'taken' (facts: the queries that another
-- worker has, that have ended or are not there), 'epoch_changed', 'epoch_over', or an outcome of
-- wallets_write.
--
-- epoch    the open epoch, as the leaves name it
-- settled  [{"query", "post": the id of the transfer that posts its hold, "tail": that one's leaf
--            as wallets_write takes it, "leaf": the query's own, "outputs", "mark": the end of its
--            timeline, "told": the body of a call, and what compute_answered takes}]
-- event    the name of what is told the outbox; heard: whether anybody listens
CREATE OR REPLACE FUNCTION listings_settle(
    dao uuid, epoch uuid, settled jsonb, event text, heard bool, call text, channel text,
    now timestamptz,
    OUT code text, OUT facts jsonb
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    ids uuid[]; gone uuid[]; sides uuid[]; posts uuid[]; holds uuid[]; debits uuid[];
    credits uuid[]; amounts numeric[]; kinds text[]; ref_types text[]; ref_ids text[]; tails text[];
    n int; calls int; current record; written record;
BEGIN
    SELECT array_agg((s ->> 'query')::uuid) INTO ids FROM jsonb_array_elements(settled) s;
    n := cardinality(ids);
    PERFORM FROM listings_query q WHERE q.id = ANY(ids) ORDER BY q.id FOR UPDATE;
    SELECT e.id, e.ends_at INTO current FROM subdaos_epoch e
    WHERE e.dao_id = dao AND e.closed_at IS NULL FOR UPDATE;
    IF current.id IS DISTINCT FROM epoch THEN code := 'epoch_changed'; RETURN; END IF;
    IF current.ends_at <= now THEN code := 'epoch_over'; RETURN; END IF;
    PERFORM FROM compute_job j
    WHERE j.id IN (SELECT (s ->> 'job')::uuid FROM jsonb_array_elements(settled) s)
    ORDER BY j.id FOR UPDATE;
    SELECT array_agg(s.query) INTO gone
    FROM jsonb_to_recordset(settled) AS s(query uuid, job uuid, state text, attempt int)
    LEFT JOIN listings_query q ON q.id = s.query LEFT JOIN compute_job j ON j.id = s.job
    WHERE q.state IS DISTINCT FROM 'running'
        OR (j.state, j.attempt) IS DISTINCT FROM (s.state, s.attempt);
    IF gone IS NOT NULL THEN code := 'taken'; facts := to_jsonb(gone); RETURN; END IF;

    SELECT array_agg(s.post), array_agg(h.id), array_agg(h.debit_id), array_agg(h.credit_id),
        array_agg(h.amount_micro::numeric), array_agg(h.kind::text), array_agg(h.ref_type::text),
        array_agg(h.ref_id::text), array_agg(s.tail)
    INTO posts, holds, debits, credits, amounts, kinds, ref_types, ref_ids, tails
    FROM jsonb_to_recordset(settled) AS s(query uuid, post uuid, tail text)
    JOIN listings_query q ON q.id = s.query JOIN wallets_transfer h ON h.id = q.hold_id;
    SELECT array_agg(DISTINCT side) INTO sides FROM unnest(debits || credits) side;
    SELECT * INTO written FROM wallets_write(
        sides, posts,
        (SELECT array_agg(array_position(sides, u.id) ORDER BY u.k)
            FROM unnest(debits) WITH ORDINALITY u(id, k)),
        (SELECT array_agg(array_position(sides, u.id) ORDER BY u.k)
            FROM unnest(credits) WITH ORDINALITY u(id, k)),
        amounts, kinds, array_fill('post'::text, ARRAY[n]), holds,
        array_fill(NULL::timestamptz, ARRAY[n]), ref_types, ref_ids,
        array_fill(''::text, ARRAY[n]), tails, now, NULL);
    IF written.code <> 'written' THEN
        code := written.code; facts := to_jsonb(holds[written.place]); RETURN;
    END IF;

    -- After this point it must succeed.
    PERFORM compute_answered(settled, 'done', now);
    UPDATE listings_query q
    SET state = 'settled', epoch_id = epoch, ended_at = now, upload = NULL, reason = '',
        outputs = s.outputs, timeline = q.timeline || s.mark
    FROM jsonb_to_recordset(settled) AS s(query uuid, outputs jsonb, mark jsonb)
    WHERE q.id = s.query;
    INSERT INTO wallets_logleaf (type, ref_id, data, hash)
    SELECT 'listings.query_settled', s.query::text, v.data, sha256('\x00'::bytea || v.data)
    FROM jsonb_to_recordset(settled) AS s(query uuid, leaf text),
        LATERAL (SELECT convert_to(s.leaf, 'UTF8') AS data) v;
    INSERT INTO core_outboxevent (id, name, payload, created_at, due_at, attempts, dispatched_at)
    SELECT gen_random_uuid(), event,
        jsonb_build_object('query_id', q.id, 'listing_id', q.listing_id), now, now, 0,
        CASE WHEN heard THEN NULL ELSE now END
    FROM listings_query q WHERE q.id = ANY(ids);
    INSERT INTO notify_delivery (id, created_at, endpoint_id, event, body, state, attempts, due_at,
        answer)
    SELECT gen_random_uuid(), now, e.id, call, s.told, 'pending', 0, now, ''
    FROM jsonb_to_recordset(settled) AS s(query uuid, told text)
    JOIN listings_query q ON q.id = s.query
    JOIN notify_endpoint e ON e.party_id = q.buyer_id
    WHERE e.removed_at IS NULL AND e.events ? call;
    GET DIAGNOSTICS calls = ROW_COUNT;
    PERFORM pg_notify(channel, id::text) FROM unnest(ids) id;
    code := 'settled'; facts := jsonb_build_object('calls', calls);
END $$;
