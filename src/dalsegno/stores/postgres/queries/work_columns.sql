SELECT work.id, work.namespace, queue, instance, instance_id, operation, attempt, step, step_key, arguments, at, priority,
       work.key, timeout, heartbeat_timeout, most_claims, cancelled, claims, token, worker, began_at, lease_until, details,
       ended, outcome
  FROM dalsegno.work
