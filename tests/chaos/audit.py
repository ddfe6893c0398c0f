"""What Postgres itself writes down of each attempt, by triggers: what could be seen when one was marked to be sent.

A mark is a fault when its transaction could see that another attempt of the record had an id (or the picture) and no
end: then it is sent beside one that the provider has taken (PIPELINE S1). A record that leaves a terminal status by
anything but a replay is another.
"""

MADE = """
CREATE TABLE chaos_audit (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    could_see pg_snapshot,
    -- marked, named (an id or the pictures), closed (for good), reopened (a record)
    what text NOT NULL,
    record_id uuid NOT NULL,
    attempt_id uuid
);

CREATE FUNCTION chaos_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known bool := NEW.provider_request_id IS NOT NULL OR NEW.webhook_request_id IS NOT NULL
        OR NEW.output_urls IS NOT NULL;
    over bool := NEW.outcome IS NOT NULL AND NEW.outcome <> 'uncertain';
BEGIN
    IF NEW.sent_at IS NOT NULL AND (TG_OP = 'INSERT' OR OLD.sent_at IS NULL) THEN
        INSERT INTO chaos_audit (what, record_id, attempt_id, could_see)
        VALUES ('marked', NEW.record_id, NEW.id, pg_current_snapshot());
    END IF;
    IF known AND (TG_OP = 'INSERT' OR OLD.provider_request_id IS NULL AND OLD.webhook_request_id IS NULL
            AND OLD.output_urls IS NULL) THEN
        INSERT INTO chaos_audit (what, record_id, attempt_id) VALUES ('named', NEW.record_id, NEW.id);
    END IF;
    IF over AND (TG_OP = 'INSERT' OR OLD.outcome IS NULL OR OLD.outcome = 'uncertain') THEN
        INSERT INTO chaos_audit (what, record_id, attempt_id) VALUES ('closed', NEW.record_id, NEW.id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_attempt AFTER INSERT OR UPDATE ON generation_attempts
    FOR EACH ROW EXECUTE FUNCTION chaos_attempt();

CREATE FUNCTION chaos_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_audit (what, record_id) VALUES ('reopened', NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_record AFTER UPDATE ON image_generations FOR EACH ROW
    WHEN (OLD.status IN ('completed', 'failed', 'cancelled') AND NEW.status IS DISTINCT FROM OLD.status)
    EXECUTE FUNCTION chaos_record();
"""

SENT_BESIDE = """
SELECT m.record_id, m.attempt_id, m.at, n.attempt_id AS beside, n.at AS known_at
FROM chaos_audit m JOIN chaos_audit n ON n.record_id = m.record_id AND n.attempt_id <> m.attempt_id
WHERE m.what = 'marked' AND n.what = 'named' AND m.record_id = ANY($1::uuid[])
    AND pg_visible_in_snapshot(n.xid, m.could_see)
    AND NOT EXISTS (SELECT FROM chaos_audit c WHERE c.what = 'closed' AND c.attempt_id = n.attempt_id
        AND pg_visible_in_snapshot(c.xid, m.could_see))
"""

REOPENED = "SELECT record_id, at FROM chaos_audit WHERE what = 'reopened' AND record_id = ANY($1::uuid[])"
