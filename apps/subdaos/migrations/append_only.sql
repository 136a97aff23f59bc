-- Points are appended and stay: the services have no path that changes a row, and neither has the
-- database. Who could change `party_id` of a row would have moved points.
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON subdaos_sbgtcheckpoint
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON subdaos_sbgtcheckpoint
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();

-- Emissions and conversions are history too.
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON subdaos_emission
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON subdaos_emission
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON subdaos_conversion
    FOR EACH ROW EXECUTE FUNCTION wallets_refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON subdaos_conversion
    FOR EACH STATEMENT EXECUTE FUNCTION wallets_refuse();
