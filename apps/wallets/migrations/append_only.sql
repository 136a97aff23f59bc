-- What is written to the ledger and the log stays as it is.
--
-- Services have no path that updates or deletes these rows; the triggers back that up against a
-- mistake in code or at a prompt. (Whoever owns the database can drop a trigger: that is what signed
-- heads and `verify_ledger` are for.)
CREATE FUNCTION wallets_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: its rows are append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION wallets_leaf_number_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.seq IS NULL AND NEW.seq IS NOT NULL AND NEW.id = OLD.id AND NEW.type = OLD.type
        AND NEW.ref_id = OLD.ref_id AND NEW.data = OLD.data AND NEW.hash = OLD.hash THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a log leaf is numbered once and never changed'
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON wallets_transfer
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON wallets_transfer
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON wallets_treehead
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON wallets_treehead
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON wallets_lognode
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON wallets_lognode
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_delete BEFORE DELETE ON wallets_logleaf
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON wallets_logleaf
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER number_once BEFORE UPDATE ON wallets_logleaf
    FOR EACH ROW EXECUTE FUNCTION wallets_leaf_number_once();
