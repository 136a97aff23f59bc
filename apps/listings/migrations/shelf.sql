-- What listings are found by, copied from the SubDAO's parameters and the version's evidence.
CREATE FUNCTION listings_shelve() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT d.domain, d.licence, d.model_class, d.standard, d.row_price_micro,
        COALESCE(v.lead_milli, -1000000)
    INTO STRICT NEW.domain, NEW.licence, NEW.model_class, NEW.standard, NEW.row_price_micro,
        NEW.lead_milli
    FROM subdaos_dao d, training_modelversion v
    WHERE d.id = NEW.dao_id AND v.id = NEW.version_id;
    RETURN NEW;
END
$$;

CREATE TRIGGER shelve
    BEFORE INSERT OR UPDATE OF
        dao_id, version_id, domain, licence, model_class, standard, row_price_micro, lead_milli
    ON listings_listing FOR EACH ROW EXECUTE FUNCTION listings_shelve();

CREATE FUNCTION listings_shelve_dao() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE listings_listing SET domain = domain WHERE dao_id = NEW.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER shelve AFTER UPDATE OF params ON subdaos_dao
    FOR EACH ROW WHEN (OLD.params IS DISTINCT FROM NEW.params)
    EXECUTE FUNCTION listings_shelve_dao();

CREATE FUNCTION listings_shelve_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE listings_listing SET lead_milli = lead_milli WHERE version_id = NEW.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER shelve AFTER UPDATE OF evidence ON training_modelversion
    FOR EACH ROW WHEN (OLD.evidence IS DISTINCT FROM NEW.evidence)
    EXECUTE FUNCTION listings_shelve_version();
