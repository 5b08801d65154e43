INSERT INTO dalsegno.events (namespace, id, event_type, topic, key, recipient, payload, at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (namespace, id) DO NOTHING
RETURNING position
