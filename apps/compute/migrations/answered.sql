-- compute_answered: the receipts of jobs, and their next state, by one statement.
--
-- answers     [{"job", "state", "attempt", "descriptor", "openings", "model",
--               "receipts": [{"node", "body", "signature"}]}]; more keys are another's
-- next_state  'done', or 'committing' where the result is next made permanent
-- recorded    those of the jobs that are in the state and attempt that the caller says
CREATE FUNCTION compute_answered(
    answers jsonb, next_state text, now timestamptz, OUT recorded uuid[]
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    SELECT coalesce(array_agg(held.id), '{}') INTO recorded
    FROM (
        SELECT j.id, j.state, j.attempt FROM compute_job j
        WHERE j.id IN (SELECT (a ->> 'job')::uuid FROM jsonb_array_elements(answers) a)
        ORDER BY j.id FOR UPDATE
    ) held
    JOIN jsonb_to_recordset(answers) AS a(job uuid, state text, attempt int)
        ON (a.job, a.state, a.attempt) = (held.id, held.state, held.attempt);

    -- A claim of these nodes waits from here on, so that the order of leaves is also the order of
    -- claims and work.
    PERFORM FROM compute_node n
    WHERE n.fingerprint IN (
        SELECT r ->> 'node' FROM jsonb_array_elements(answers) a,
            jsonb_array_elements(a -> 'receipts') r
    )
    ORDER BY n.id FOR KEY SHARE;
    INSERT INTO compute_receipt (id, created_at, job_id, node_id, operator_id, body, signature)
    SELECT gen_random_uuid(), now, a.job, n.id, n.operator_id, r.body, r.signature
    FROM jsonb_to_recordset(answers) AS a(job uuid, receipts jsonb),
        jsonb_to_recordset(a.receipts) AS r(node text, body jsonb, signature text)
    JOIN compute_node n ON n.fingerprint = r.node
    WHERE a.job = ANY(recorded);
    UPDATE compute_job j
    SET state = next_state, descriptor = a.descriptor, openings = a.openings, model = a.model,
        done_at = CASE WHEN next_state = 'done' THEN now ELSE j.done_at END,
        lease_until = CASE WHEN next_state = 'done' THEN NULL ELSE j.lease_until END
    FROM jsonb_to_recordset(answers)
        AS a(job uuid, descriptor jsonb, openings jsonb, model text)
    WHERE j.id = a.job AND j.id = ANY(recorded);
END $$;
