INSERT INTO dalsegno.instances (namespace, id, process, version, input_hash, created_at, updated_at, parent,
                                parent_operation, owner, begun, events_from, status)
VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10,
        coalesce($11::bigint, (SELECT max(position) FROM dalsegno.events WHERE namespace = $1), 0), 'running')
ON CONFLICT (namespace, id) DO NOTHING
RETURNING key
