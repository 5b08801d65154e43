INSERT INTO work (namespace, queue, instance, instance_id, operation, attempt, step, step_key, arguments, at, priority,
                  key, timeout, heartbeat_timeout, most_claims, cancelled, state, ended, turn, details)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
        iif(?16, 'done', 'ready'), iif(?16, 'cancelled', NULL),
        max(coalesce((SELECT turn + 1 FROM work
                       WHERE namespace = ?1 AND queue = ?2 AND key = ?12 AND priority = ?11
                       ORDER BY turn DESC LIMIT 1), 0),
            coalesce((SELECT turn FROM work
                       WHERE namespace = ?1 AND queue = ?2 AND priority = ?11 AND state = 'ready'
                       ORDER BY turn LIMIT 1), 0)),
        (SELECT details FROM heartbeats WHERE instance = ?3 AND step = ?5))
ON CONFLICT (instance, step_key, attempt) DO UPDATE
   SET cancelled = 1, state = iif(state = 'ready', 'done', state), ended = iif(state = 'ready', 'cancelled', ended)
 WHERE excluded.cancelled
