-- As shelf.sql, and the credential that asking takes: "*" where everybody may.
CREATE OR REPLACE FUNCTION listings_shelve() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT d.domain, d.licence, d.model_class, d.standard, d.row_price_micro,
        COALESCE(v.lead_milli, -1000000), COALESCE(d.params -> 'access' ->> 'credential', '*')
    INTO STRICT NEW.domain, NEW.licence, NEW.model_class, NEW.standard, NEW.row_price_micro,
        NEW.lead_milli, NEW.access
    FROM subdaos_dao d, training_modelversion v
    WHERE d.id = NEW.dao_id AND v.id = NEW.version_id;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER shelve
    BEFORE INSERT OR UPDATE OF dao_id, version_id, domain, licence, model_class, standard,
        row_price_micro, lead_milli, access
    ON listings_listing FOR EACH ROW EXECUTE FUNCTION listings_shelve();

UPDATE listings_listing SET access = access;
