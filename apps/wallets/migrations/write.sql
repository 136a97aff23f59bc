-- wallets_write: the hot write of the ledger, all of its transfers or none, in their order.
--
-- The rules are apps/protocol/ledger.py, which tests hold equal to this; apps/wallets/ledger.py
-- calls it and says what each outcome means. An answer other than 'written' has written nothing.
-- Which of several faults is named: transfer_conflict or hold_resolved of an id that is taken;
-- hold_not_found, hold_resolved, hold_expired; then the rules by their PRECEDENCE, move by move.
--
-- accounts     every account named, once; debits and credits are places in it, from 1
-- tails        a leaf's canonical bytes from its second key on; the first, "at", is known here only
-- events       rows for the outbox: [{"id", "name", "payload"}]
-- The settings keep index look-ups whatever size the tables had when a session planned them.
CREATE OR REPLACE FUNCTION wallets_write(
    accounts uuid[], ids uuid[], debits int[], credits int[], amounts numeric[], kinds text[],
    phases text[], pendings uuid[], expiries timestamptz[], ref_types text[], ref_ids text[],
    memos text[], tails text[], now timestamptz, events jsonb,
    OUT code text, OUT place int, OUT account uuid, OUT short_micro numeric, OUT detail text,
    OUT at timestamptz
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    amount_max CONSTANT bigint := 9223372036854775807;
    n CONSTANT int := cardinality(ids);
    m CONSTANT int := cardinality(accounts);
    changes bool[] := array_fill(false, ARRAY[m]);
    closed bool[] := array_fill(NULL::bool, ARRAY[m]);  -- NULL: there is no such account
    assets uuid[] := array_fill(NULL::uuid, ARRAY[m]);
    posted bigint[] := array_fill(0::bigint, ARRAY[m]);
    held bigint[] := array_fill(0::bigint, ARRAY[m]);
    floors bigint[] := array_fill(0::bigint, ARRAY[m]);
    holds bigint[] := array_fill(0::bigint, ARRAY[n]);
    resolves CONSTANT bool := 'post' = ANY(phases) OR 'void' = ANY(phases);
    -- The commonest group, one payment: by the same rules, in statements without arrays.
    plain CONSTANT bool := n = 1 AND m = 2 AND phases[1] = 'single';
    leaf bytea;
    taken int := 0;
    d int; c int; a bigint; free numeric; r record;
BEGIN
    -- Lock, in the order of the ids. A pend or void changes its debit side only: the payee, often
    -- everybody's, is not waited for.
    FOR i IN 1..n LOOP
        changes[debits[i]] := true;
        IF phases[i] IN ('single', 'post') THEN changes[credits[i]] := true; END IF;
    END LOOP;
    at := now;
    -- A row's time never runs backwards on any of its accounts, so that a balance at a time is one
    -- prefix of the account's transfers; nor is it before what its asset has closed.
    IF plain THEN
        FOR r IN
            SELECT x.id, x.asset_id, x.posted_micro, x.held_micro, x.floor_micro, x.last_at,
                x.closed_at, s.quiet_at
            FROM wallets_account x JOIN wallets_asset s ON s.id = x.asset_id
            WHERE x.id IN (accounts[1], accounts[2]) ORDER BY x.id FOR NO KEY UPDATE OF x
        LOOP
            d := CASE WHEN r.id = accounts[1] THEN 1 ELSE 2 END;
            posted[d] := r.posted_micro; held[d] := r.held_micro; floors[d] := r.floor_micro;
            assets[d] := r.asset_id; closed[d] := r.closed_at IS NOT NULL;
            at := greatest(at, r.last_at, r.quiet_at);
        END LOOP;
    ELSE
        FOR r IN
            SELECT u.k, x.*, s.quiet_at
            FROM unnest(accounts, changes) WITH ORDINALITY AS u(id, changes, k)
            JOIN wallets_account x ON x.id = u.id JOIN wallets_asset s ON s.id = x.asset_id
            WHERE u.changes ORDER BY x.id FOR NO KEY UPDATE OF x
        LOOP
            posted[r.k] := r.posted_micro; held[r.k] := r.held_micro; floors[r.k] := r.floor_micro;
            assets[r.k] := r.asset_id; closed[r.k] := r.closed_at IS NOT NULL;
            at := greatest(at, r.last_at, r.quiet_at);
        END LOOP;
    END IF;
    IF false = ANY(changes) THEN
        FOR r IN
            SELECT u.k, x.* FROM unnest(accounts, changes) WITH ORDINALITY AS u(id, changes, k)
            JOIN wallets_account x ON x.id = u.id WHERE NOT u.changes
        LOOP
            posted[r.k] := r.posted_micro; held[r.k] := r.held_micro; floors[r.k] := r.floor_micro;
            assets[r.k] := r.asset_id; closed[r.k] := r.closed_at IS NOT NULL;
        END LOOP;
    END IF;

    -- Ids: a group exists whole, with this content, or not at all.
    IF n > 1 THEN
        SELECT min(u.k) INTO place FROM (
            SELECT k, row_number() OVER (PARTITION BY id ORDER BY k) AS nth
            FROM unnest(ids) WITH ORDINALITY AS v(id, k)
        ) u WHERE u.nth > 1;
        IF place IS NOT NULL THEN code := 'transfer_conflict'; RETURN; END IF;
    END IF;
    IF NOT (plain AND NOT EXISTS (SELECT FROM wallets_transfer t WHERE t.id = ids[1])) THEN
        FOR r IN
            SELECT u.k, t.* FROM unnest(ids) WITH ORDINALITY AS u(id, k)
            JOIN wallets_transfer t ON t.id = u.id ORDER BY u.k
        LOOP
            taken := taken + 1; place := r.k;
            IF (r.debit_id, r.credit_id, r.amount_micro, r.kind, r.phase, r.ref_type, r.ref_id, r.memo)
                <> (accounts[debits[r.k]], accounts[credits[r.k]], amounts[r.k], kinds[r.k],
                    phases[r.k], ref_types[r.k], ref_ids[r.k], memos[r.k])
                OR r.pending_id IS DISTINCT FROM pendings[r.k]
            THEN
                IF r.pending_id = pendings[r.k] THEN code := 'hold_resolved'; detail := r.phase;
                ELSE code := 'transfer_conflict'; END IF;
                RETURN;
            END IF;
        END LOOP;
    END IF;
    IF taken > 0 THEN
        code := CASE WHEN taken = n THEN 'exists' ELSE 'transfer_conflict' END;
        RETURN;
    END IF;

    -- Holds that are to be resolved.
    IF resolves THEN
        FOR r IN
            SELECT u.k, u.nth, p.debit_id, p.credit_id, p.amount_micro, p.phase, p.expires_at,
                s.phase AS resolution
            FROM (
                SELECT v.k, v.id, row_number() OVER (PARTITION BY v.id ORDER BY v.k) AS nth
                FROM unnest(pendings) WITH ORDINALITY AS v(id, k) WHERE phases[v.k] IN ('post', 'void')
            ) u
            LEFT JOIN wallets_transfer p ON p.id = u.id
            LEFT JOIN wallets_transfer s ON s.pending_id = p.id ORDER BY u.k
        LOOP
            place := r.k; detail := r.resolution;
            IF r.phase IS DISTINCT FROM 'pend' OR r.debit_id <> accounts[debits[r.k]]
                OR r.credit_id <> accounts[credits[r.k]]
            THEN code := 'hold_not_found'; RETURN;
            ELSIF r.resolution IS NOT NULL THEN code := 'hold_resolved'; RETURN;
            ELSIF r.nth > 1 THEN code := 'hold_resolved'; detail := 'post'; RETURN;
            ELSIF phases[r.k] = 'post' AND r.expires_at <= now
            THEN code := 'hold_expired'; RETURN;
            END IF;
            holds[r.k] := r.amount_micro;
        END LOOP;
    END IF;

    -- The rules.
    FOR i IN 1..n LOOP
        d := debits[i]; c := credits[i]; place := i; account := accounts[d];
        IF closed[d] IS NULL THEN code := 'unknown_account'; RETURN;
        ELSIF closed[c] IS NULL THEN code := 'unknown_account'; account := accounts[c]; RETURN;
        ELSIF amounts[i] <= 0 THEN code := 'amount_not_positive'; RETURN;
        ELSIF amounts[i] > amount_max THEN code := 'amount_too_large'; RETURN;
        ELSIF d = c THEN code := 'same_account'; RETURN;
        ELSIF assets[d] <> assets[c] THEN code := 'asset_mismatch'; RETURN;
        END IF;
        a := amounts[i];
        IF phases[i] <> 'void' AND (closed[d] OR closed[c]) THEN
            code := 'account_closed';
            IF NOT closed[d] THEN account := accounts[c]; END IF;
            RETURN;
        ELSIF phases[i] IN ('post', 'void') THEN
            IF a > holds[i] THEN
                code := 'post_over_hold'; short_micro := a - holds[i]; RETURN;
            ELSIF holds[i] > held[d] THEN code := 'nothing_held'; RETURN;
            END IF;
        ELSE
            free := posted[d]::numeric - held[d] - floors[d];
            IF a > free THEN
                code := 'insufficient_balance'; short_micro := a - free; RETURN;
            END IF;
        END IF;
        IF phases[i] = 'pend' THEN
            IF held[d] > amount_max - a THEN code := 'balance_overflow'; RETURN; END IF;
            held[d] := held[d] + a;
        ELSIF phases[i] = 'void' THEN
            held[d] := held[d] - holds[i];
        ELSE
            IF posted[c] > amount_max - a THEN
                code := 'balance_overflow'; account := accounts[c]; RETURN;
            END IF;
            posted[d] := posted[d] - a;
            held[d] := held[d] - holds[i];
            posted[c] := posted[c] + a;
        END IF;
    END LOOP;

    -- After this point it must succeed.
    IF plain THEN
        INSERT INTO wallets_transfer (id, debit_id, credit_id, amount_micro, kind, phase,
            ref_type, ref_id, memo, created_at)
        VALUES (ids[1], accounts[debits[1]], accounts[credits[1]], amounts[1], kinds[1],
            phases[1], ref_types[1], ref_ids[1], memos[1], at);
        UPDATE wallets_account x SET last_at = at,
            posted_micro = CASE WHEN x.id = accounts[1] THEN posted[1] ELSE posted[2] END
        WHERE x.id IN (accounts[1], accounts[2]);
    ELSE
        INSERT INTO wallets_transfer (id, debit_id, credit_id, amount_micro, kind, phase, pending_id,
            expires_at, ref_type, ref_id, memo, created_at)
        SELECT u.id, accounts[u.debit], accounts[u.credit], u.amount, u.kind, u.phase, u.pending,
            u.expiry, u.ref_type, u.ref_id, u.memo, at
        FROM unnest(ids, debits, credits, amounts, kinds, phases, pendings, expiries, ref_types,
            ref_ids, memos) AS u(id, debit, credit, amount, kind, phase, pending, expiry, ref_type,
            ref_id, memo);
        UPDATE wallets_account x SET posted_micro = u.posted, held_micro = u.held, last_at = at
        FROM unnest(accounts, posted, held, changes) AS u(id, posted, held, changes)
        WHERE x.id = u.id AND u.changes;
    END IF;
    IF 'pend' = ANY(phases) THEN
        INSERT INTO wallets_hold (transfer_id, account_id, amount_micro, expires_at)
        SELECT u.id, accounts[u.debit], u.amount, u.expiry
        FROM unnest(ids, debits, amounts, phases, expiries) AS u(id, debit, amount, phase, expiry)
        WHERE u.phase = 'pend';
    END IF;
    IF resolves THEN
        DELETE FROM wallets_hold WHERE transfer_id = ANY(pendings);
    END IF;
    -- [leaves]
    IF plain THEN
        leaf := convert_to(
            '{"at":' || floor(extract(epoch FROM at) * 1000)::bigint || tails[1], 'UTF8');
        INSERT INTO wallets_logleaf (type, ref_id, data, hash)
        VALUES ('wallets.transfer', ids[1]::text, leaf, sha256('\x00'::bytea || leaf));
    ELSE
        INSERT INTO wallets_logleaf (type, ref_id, data, hash)
        SELECT 'wallets.transfer', u.id::text, v.data, sha256('\x00'::bytea || v.data)
        FROM unnest(ids, tails) WITH ORDINALITY AS u(id, tail, k),
            LATERAL (SELECT convert_to(
                '{"at":' || floor(extract(epoch FROM at) * 1000)::bigint || u.tail, 'UTF8') AS data) v
        ORDER BY u.k;
    END IF;
    -- [/leaves]
    IF events IS NOT NULL THEN
        INSERT INTO core_outboxevent (id, name, payload, created_at, due_at, attempts)
        SELECT e.id, e.name, e.payload, now, now, 0
        FROM jsonb_to_recordset(events) AS e(id uuid, name text, payload jsonb);
    END IF;
    code := 'written'; place := NULL; account := NULL;
END $$;
