-- What an epoch owes is written once, under the root that the log has of it; later a row is marked
-- as paid, once, and nothing else of it changes.
CREATE FUNCTION listings_claimed_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.claimed_at IS NULL AND NEW.claimed_at IS NOT NULL
        AND (NEW.epoch_id, NEW.party_id, NEW.pid, NEW.role, NEW.asset, NEW.amount_micro)
        = (OLD.epoch_id, OLD.party_id, OLD.pid, OLD.role, OLD.asset, OLD.amount_micro) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'an entitlement is paid once and never changed'
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER claimed_once BEFORE UPDATE OR DELETE ON listings_entitlement
    FOR EACH ROW EXECUTE FUNCTION listings_claimed_once();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON listings_entitlement
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
