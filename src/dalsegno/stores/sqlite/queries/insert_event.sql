INSERT INTO events (namespace, id, event_type, topic, key, recipient, payload, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, id) DO NOTHING
RETURNING position
