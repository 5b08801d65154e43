-- Many rows at once, none of them cancelled. The rows of one statement don't see each other: those of one key are
-- numbered here.
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::integer[], $7::text[],
                         $8::text[], $9::bytea[], $10::bigint[], $11::integer[], $12::text[], $13::double precision[],
                         $14::double precision[], $15::integer[]) WITH ORDINALITY
             AS row (namespace, queue, instance, instance_id, operation, attempt, step, step_key, arguments, at,
                     priority, key, timeout, heartbeat_timeout, most_claims, place)
),
places AS MATERIALIZED (
    SELECT namespace, queue, priority, key,
           greatest((SELECT turn + 1 FROM dalsegno.work
                      WHERE work.namespace = g.namespace AND work.queue = g.queue AND work.key = g.key
                        AND work.priority = g.priority
                      ORDER BY turn DESC LIMIT 1),
                    (SELECT turn FROM dalsegno.work
                      WHERE work.namespace = g.namespace AND work.queue = g.queue AND work.priority = g.priority
                        AND state = 'ready'
                      ORDER BY turn LIMIT 1), 0) AS first
      FROM (SELECT DISTINCT namespace, queue, priority, key FROM given) AS g
)
INSERT INTO dalsegno.work
       (namespace, queue, instance, instance_id, operation, attempt, step, step_key, arguments, at, priority, key, timeout,
        heartbeat_timeout, most_claims, turn, details)
SELECT namespace, queue, given.instance, instance_id, operation, given.attempt, given.step, step_key, arguments, given.at,
       priority, key, timeout, heartbeat_timeout, most_claims,
       first - 1 + row_number() OVER (PARTITION BY namespace, queue, priority, key ORDER BY place), known.details
  FROM given JOIN places USING (namespace, queue, priority, key)
       LEFT JOIN dalsegno.heartbeats AS known ON known.instance = given.instance AND known.step = given.operation
 ORDER BY place
ON CONFLICT (instance, step_key, attempt) DO NOTHING
