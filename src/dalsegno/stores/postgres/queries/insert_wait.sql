INSERT INTO dalsegno.waits (instance, operation, namespace, instance_id, event_type, key, match)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (instance, operation) DO UPDATE
   SET event_type = excluded.event_type, key = excluded.key, match = excluded.match, matched = NULL
