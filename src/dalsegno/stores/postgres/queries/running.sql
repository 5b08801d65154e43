UPDATE dalsegno.instances SET owner = $1
 WHERE key IN (SELECT key FROM dalsegno.instances
                WHERE owner = ANY($2::bigint[]) AND status = 'running' AND ended_at IS NULL AND key > $3
                  AND crashes < $4::bigint
                  AND ($6::text[] IS NULL OR EXISTS (SELECT 1 FROM unnest($6::text[], $7::integer[]) AS known (process, version)
                                   WHERE known.process = instances.process AND known.version = instances.version))
                ORDER BY key LIMIT $5 FOR UPDATE SKIP LOCKED)
RETURNING key
