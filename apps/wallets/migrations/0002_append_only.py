"""Triggers: what is written to the ledger and the log stays as it is.

Services have no path that updates or deletes these rows; the triggers back that up against a
mistake in code or at a prompt. (Whoever owns the database can drop a trigger: that is what signed
heads and `verify_ledger` are for.)
"""

from django.db import migrations

REFUSE = """
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
"""
UNDO_REFUSE = "DROP FUNCTION wallets_refuse(); DROP FUNCTION wallets_leaf_number_once();"


def _trigger(table: str, name: str, when: str, each: str, function: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        f"CREATE TRIGGER {name} BEFORE {when} ON {table} FOR EACH {each}"
        f" EXECUTE FUNCTION {function}()",
        f"DROP TRIGGER {name} ON {table}",
    )


def _append_only(table: str) -> list[migrations.RunSQL]:
    return [
        _trigger(table, "refuse_change", "UPDATE OR DELETE", "ROW", "wallets_refuse"),
        _trigger(table, "refuse_truncate", "TRUNCATE", "STATEMENT", "wallets_refuse"),
    ]


class Migration(migrations.Migration):
    dependencies = [("wallets", "0001_initial")]

    operations = [
        migrations.RunSQL(REFUSE, UNDO_REFUSE),
        *_append_only("wallets_transfer"),
        *_append_only("wallets_treehead"),
        *_append_only("wallets_lognode"),
        _trigger("wallets_logleaf", "refuse_delete", "DELETE", "ROW", "wallets_refuse"),
        _trigger("wallets_logleaf", "refuse_truncate", "TRUNCATE", "STATEMENT", "wallets_refuse"),
        _trigger("wallets_logleaf", "number_once", "UPDATE", "ROW", "wallets_leaf_number_once"),
    ]
