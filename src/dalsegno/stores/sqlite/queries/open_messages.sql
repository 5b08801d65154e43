SELECT position, namespace, instance, verb, body, by, at, reply, done_at
  FROM messages WHERE done_at IS NULL AND position > ? ORDER BY position LIMIT 1000
