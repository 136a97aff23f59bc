-- listings_hold: a query is held, or refused by name; what is refused has written nothing.
--
-- A buyer's queries are held one after the other: balance, the month of a key, mandates, how many
-- wait and the rows of the day are counted under the lock on the account that pays. The party is locked before it, as
-- wherever its consent is asked for. The first of these is the answer:
--
-- call_taken            the key of this call was used
-- changed               listing, version, params or payee are not those that the price was made from
-- too_many_waiting      facts: {"waiting", "rows"} of them
-- buyer_rows_used_up    facts: {"taken", "most"} rows of this version of the buyer in the nodes' epoch
-- spend_limit_reached   facts: {"limit", "left"} of the key's month
-- mandate_needed
-- plan_covers           a plan of the buyer has room for these rows, and nobody asked for it
-- plan_changed          the plan that shall pay is over, or was changed
-- (of wallets_write)    facts: what is short
-- share_id_taken, scope_taken
--
-- query, job   the rows, but for the mandate, which is chosen here, and `upload`, which is `sealed`
-- tail         the hold's leaf as wallets_write takes it, with the nil UUID as its mandate; the hold
--              outlives the query, so that what was claimed in its last second can be paid
-- leaf         the query's own
-- quoted       whether the buyer has a quote, so that it knows what pays
-- caps         {"waiting", "waiting_rows", "rows", "all_rows", "since"}: how many of a buyer's queries may
--              wait, of how many rows together, and how many of the version, of all that nodes answer, it
--              may ask since that time; under a plan no smaller a part than when its term began
-- call         {"actor_id", "key", "digest", "status", "response"} of a request that may be repeated
CREATE OR REPLACE FUNCTION listings_hold(
    query jsonb, sealed bytea, job jsonb, tail text, leaf text, params jsonb, payee uuid,
    currency text, quoted bool, call jsonb, month timestamptz, caps jsonb, channel text, now timestamptz,
    OUT code text, OUT facts jsonb
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    nil CONSTANT text := '00000000-0000-0000-0000-000000000000';
    lease_margin_s CONSTANT int := 20;  -- as listings_claim is handed it
    q listings_query := jsonb_populate_record(NULL::listings_query, query);
    keyed bool; payer uuid; plan_account uuid; waiting record; taken bigint; most bigint; spent numeric; m record; written record;
BEGIN
    q.upload := sealed;
    IF call IS NOT NULL THEN
        INSERT INTO core_idempotentcall (actor_id, key, digest, status, response, created_at)
        SELECT c.actor_id, c.key, c.digest, c.status, c.response, now
        FROM jsonb_to_record(call)
            AS c(actor_id uuid, key text, digest text, status smallint, response text)
        ON CONFLICT (actor_id, key) DO NOTHING;
        IF NOT FOUND THEN code := 'call_taken'; RAISE SQLSTATE 'FLAI0'; END IF;
    END IF;
    PERFORM FROM listings_listing l JOIN subdaos_dao d ON d.id = l.dao_id
    JOIN wallets_account a ON a.id = payee AND a.owner_id = d.party_id
    WHERE l.id = q.listing_id AND l.version_id = q.version_id AND l.status = 'open'
        AND d.params = listings_hold.params;
    IF NOT FOUND THEN code := 'changed'; RAISE SQLSTATE 'FLAI0'; END IF;

    SELECT p.keyed INTO keyed FROM accounts_party p WHERE p.id = q.buyer_id FOR SHARE;
    SELECT a.id INTO payer FROM wallets_account a JOIN wallets_asset s ON s.id = a.asset_id
    WHERE a.owner_id = q.buyer_id AND s.code = currency AND a.purpose = 'main';
    SELECT s.account_id INTO plan_account FROM listings_subscription s
    WHERE s.buyer_id = q.buyer_id AND s.listing_id = q.listing_id AND s.ended_at IS NULL;
    PERFORM FROM wallets_account a WHERE a.id IN (payer, plan_account)
    ORDER BY a.id FOR NO KEY UPDATE;
    SELECT count(*) AS queries, coalesce(sum(w.rows), 0) AS rows INTO waiting
    FROM listings_query w WHERE w.buyer_id = q.buyer_id AND w.ended_at IS NULL;
    IF waiting.queries >= (caps ->> 'waiting')::int
        OR waiting.rows + q.rows > (caps ->> 'waiting_rows')::bigint
    THEN
        code := 'too_many_waiting';
        facts := jsonb_build_object('waiting', waiting.queries, 'rows', waiting.rows);
        RAISE SQLSTATE 'FLAI0';
    END IF;
    -- An account before what was taken by its owner, as whoever releases a query locks them.
    INSERT INTO listings_taken AS t (buyer_id, version_id, since, rows)
    VALUES (q.buyer_id, q.version_id, (caps ->> 'since')::timestamptz, q.rows)
    ON CONFLICT (buyer_id, version_id) DO UPDATE SET since = greatest(t.since, excluded.since),
        rows = excluded.rows + CASE WHEN t.since >= excluded.since THEN t.rows ELSE 0 END
    RETURNING t.rows - q.rows INTO taken;
    most := greatest((caps ->> 'rows')::bigint, (
        SELECT (caps ->> 'all_rows')::bigint * s.portion_bps / 10000 FROM listings_subscription s
        WHERE s.id = q.subscription_id
    ));
    IF taken + q.rows > most THEN
        code := 'buyer_rows_used_up'; facts := jsonb_build_object('taken', taken, 'most', most);
        RAISE SQLSTATE 'FLAI0';
    END IF;
    SELECT k.spend_limit_micro INTO most FROM accounts_apikey k WHERE k.id = q.api_key_id;
    IF most IS NOT NULL THEN
        SELECT coalesce(sum(s.price_micro), 0) INTO spent FROM listings_query s
        WHERE s.api_key_id = q.api_key_id AND s.created_at >= month AND s.state <> 'released';
        IF q.price_micro > most - spent THEN
            code := 'spend_limit_reached';
            facts := jsonb_build_object('limit', most, 'left', most - spent);
            RAISE SQLSTATE 'FLAI0';
        END IF;
    END IF;
    IF q.subscription_id IS NOT NULL THEN
        -- What was paid ahead needs no mandate: the plan was signed.
        keyed := false; payer := plan_account;
        PERFORM FROM listings_subscription s
        WHERE s.id = q.subscription_id AND s.buyer_id = q.buyer_id AND s.account_id = payer
            AND s.listing_id = q.listing_id AND s.ended_at IS NULL AND s.ends_at > now
            AND s.row_micro * q.rows = q.price_micro;
        IF NOT FOUND THEN code := 'plan_changed'; RAISE SQLSTATE 'FLAI0'; END IF;
    ELSIF plan_account IS NOT NULL AND NOT quoted THEN
        PERFORM FROM listings_subscription s JOIN wallets_account a ON a.id = s.account_id
        WHERE a.id = plan_account AND s.ended_at IS NULL AND s.ends_at > now
            AND a.posted_micro - a.held_micro >= s.row_micro * q.rows;
        IF FOUND THEN code := 'plan_covers'; RAISE SQLSTATE 'FLAI0'; END IF;
    END IF;
    IF keyed THEN
        -- In force: neither ended nor over, and of the wallet key that is bound now. The one that
        -- ends first is used first.
        FOR m IN
            SELECT g.id, g.limit_micro FROM listings_mandate g
            WHERE g.party_id = q.buyer_id AND g.ended_at IS NULL AND g.until > now
                AND g.api_key_id IS NOT DISTINCT FROM q.api_key_id
                AND g.listing IN ('*', (SELECT l.slug FROM listings_listing l
                    WHERE l.id = q.listing_id))
                AND g.public_key IN (SELECT k.public_key FROM accounts_partykey k
                    WHERE k.party_id = q.buyer_id AND k.purpose = 'wallet' AND k.active)
            ORDER BY g.until, g.id FOR NO KEY UPDATE OF g
        LOOP
            SELECT coalesce(sum(s.price_micro), 0) INTO spent FROM listings_query s
            WHERE s.mandate_id = m.id AND s.state <> 'released';
            IF spent + q.price_micro <= m.limit_micro THEN q.mandate_id := m.id; EXIT; END IF;
        END LOOP;
        IF q.mandate_id IS NULL THEN code := 'mandate_needed'; RAISE SQLSTATE 'FLAI0'; END IF;
    END IF;
    IF payer IS NULL THEN
        code := 'insufficient_balance'; facts := to_jsonb(q.price_micro); RAISE SQLSTATE 'FLAI0';
    END IF;
    SELECT * INTO written FROM wallets_write(
        ARRAY[payer, payee], ARRAY[q.hold_id], ARRAY[1], ARRAY[2],
        ARRAY[q.price_micro::numeric], ARRAY['listings.query'], ARRAY['pend'], ARRAY[NULL::uuid],
        ARRAY[q.expires_at + make_interval(
            secs => (job -> 'descriptor' ->> 'deadline_s')::int + lease_margin_s)], ARRAY['listings.query'], ARRAY[q.id::text], ARRAY[''],
        ARRAY[CASE WHEN keyed THEN replace(tail, nil, q.mandate_id::text)
            ELSE replace(tail, '"mandate":"' || nil || '",', '') END],
        now, NULL);
    IF written.code <> 'written' THEN
        code := written.code; facts := to_jsonb(written.short_micro); RAISE SQLSTATE 'FLAI0';
    END IF;
    INSERT INTO listings_query VALUES (q.*);

    -- After this point it must succeed.
    INSERT INTO compute_job SELECT * FROM jsonb_populate_record(NULL::compute_job, job);
    INSERT INTO wallets_logleaf (type, ref_id, data, hash)
    SELECT 'listings.query_held', '', v.data, sha256('\x00'::bytea || v.data)
    FROM (SELECT convert_to(leaf, 'UTF8') AS data) v;
    -- One of many rows waits for its turn: a worker looks at what else waits.
    PERFORM pg_notify(channel, q.version_id || CASE WHEN q.rows > 1000 THEN '' ELSE ' ' || q.id END);
    code := 'held';
EXCEPTION
    WHEN SQLSTATE 'FLAI0' THEN NULL;  -- refused, as `code` says; whatever was written is undone
    WHEN unique_violation THEN
        SELECT CASE WHEN bool_or(t.share_id = q.share_id) THEN 'share_id_taken'
            WHEN bool_or(t.scope = q.scope) THEN 'scope_taken' END INTO code
        FROM listings_query t WHERE t.share_id = q.share_id OR t.scope = q.scope;
        IF code IS NULL THEN RAISE; END IF;
END $$;
