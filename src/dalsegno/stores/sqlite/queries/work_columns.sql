SELECT id, namespace, queue, instance, instance_id, operation, attempt, step, step_key, arguments, at, priority, key,
       timeout, heartbeat_timeout, most_claims, cancelled, claims, token, worker, began_at, lease_until, details, ended,
       outcome
  FROM work
