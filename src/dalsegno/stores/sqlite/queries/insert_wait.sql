INSERT INTO waits (instance, operation, namespace, instance_id, event_type, key, match)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (instance, operation) DO UPDATE
   SET event_type = excluded.event_type, key = excluded.key, match = excluded.match, matched = NULL
