INSERT INTO instances (key, namespace, id, process, version, status, run, base_seq, input_hash, begun, created_at,
                       updated_at, parent, parent_operation, events_from)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, id) DO NOTHING
