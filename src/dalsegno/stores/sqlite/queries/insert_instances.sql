INSERT INTO instances (key, namespace, id, process, version, input_hash, begun, created_at, updated_at, parent,
                       parent_operation, events_from, status)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'running')
ON CONFLICT (namespace, id) DO NOTHING
