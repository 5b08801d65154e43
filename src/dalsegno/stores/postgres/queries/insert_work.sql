INSERT INTO dalsegno.work AS known
       (namespace, queue, instance, instance_id, operation, attempt, step, step_key, arguments, at, priority, key, timeout,
        heartbeat_timeout, most_claims, cancelled, state, ended, turn, details)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
        CASE WHEN $16 THEN 'done' ELSE 'ready' END, CASE WHEN $16 THEN 'cancelled' END,
        greatest((SELECT turn + 1 FROM dalsegno.work
                   WHERE namespace = $1 AND queue = $2 AND key = $12 AND priority = $11
                   ORDER BY turn DESC LIMIT 1),
                 (SELECT turn FROM dalsegno.work
                   WHERE namespace = $1 AND queue = $2 AND priority = $11 AND state = 'ready'
                   ORDER BY turn LIMIT 1), 0),
        (SELECT details FROM dalsegno.heartbeats WHERE instance = $3 AND step = $5))
ON CONFLICT (instance, step_key, attempt) DO UPDATE
   SET cancelled = true, state = CASE known.state WHEN 'ready' THEN 'done' ELSE known.state END,
       ended = CASE known.state WHEN 'ready' THEN 'cancelled' ELSE known.ended END
 WHERE excluded.cancelled
