-- wallets_pay: a payment between the main accounts of two parties, in one round trip, by whoever acts
-- without a wallet key's signature.
--
-- The answer is 'written', or nothing has been written: then the caller goes the longer way, which
-- makes an account that is missing, frees expired holds, answers retries and says what is wrong.
-- The share lock keeps the binding of a key out until this payment is committed.
CREATE OR REPLACE FUNCTION wallets_pay(
    payer uuid, payee uuid, asset text, id uuid, amount numeric, kind text, memo text, tail text,
    now timestamptz,
    OUT code text, OUT at timestamptz, OUT asset_id uuid, OUT debit_id uuid, OUT credit_id uuid
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE keyed bool;
BEGIN
    SELECT p.keyed INTO keyed FROM accounts_party p WHERE p.id = payer FOR SHARE;
    IF keyed IS DISTINCT FROM false THEN code := 'signature_required'; RETURN; END IF;
    SELECT s.id, d.id, c.id INTO asset_id, debit_id, credit_id
    FROM wallets_asset s
    JOIN wallets_account d ON d.owner_id = payer AND d.asset_id = s.id AND d.purpose = 'main'
    JOIN wallets_account c ON c.owner_id = payee AND c.asset_id = s.id AND c.purpose = 'main'
    WHERE s.code = asset AND payer <> payee;
    IF NOT FOUND THEN code := 'unknown_account'; RETURN; END IF;
    SELECT w.code, w.at INTO code, at FROM wallets_write(
        ARRAY[debit_id, credit_id], ARRAY[id], ARRAY[1], ARRAY[2], ARRAY[amount], ARRAY[kind],
        ARRAY['single'], ARRAY[NULL::uuid], ARRAY[NULL::timestamptz], ARRAY[''], ARRAY[''],
        ARRAY[memo], ARRAY[tail], now, NULL) w;
END $$;
