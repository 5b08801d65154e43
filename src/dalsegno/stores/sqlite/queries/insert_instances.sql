INSERT INTO instances (key, namespace, id, process, version, input_hash, begun, created_at, updated_at, parent,
                       parent_operation, events_from, status)
SELECT *, 'running' FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) WHERE column1 IS NOT NULL
ON CONFLICT (namespace, id) DO NOTHING
