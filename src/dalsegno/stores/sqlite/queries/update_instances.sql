WITH change (key, status, updated_at, wake_at, waiting_for, error, ended_at, run, base_seq) AS (
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
)
UPDATE instances
   SET status = change.status, updated_at = change.updated_at, wake_at = change.wake_at,
       waiting_for = change.waiting_for, error = change.error, ended_at = change.ended_at, run = change.run,
       base_seq = change.base_seq, begun = 1
  FROM change
 WHERE instances.key = change.key
