-- A pool's history stays as it was written: the trigger of the ledger's own rows.
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON exchange_poolevent
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON exchange_poolevent
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
