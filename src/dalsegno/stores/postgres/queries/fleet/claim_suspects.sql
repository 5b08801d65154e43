UPDATE dalsegno.instances SET owner = $1
 WHERE key IN (SELECT key FROM dalsegno.instances
                WHERE owner = ANY($2::bigint[]) AND status = 'running' AND ended_at IS NULL AND crashes >= $3::bigint
                  AND ($4::text[] IS NULL OR EXISTS (SELECT 1 FROM unnest($4::text[], $5::integer[]) AS known (process, version)
                                      WHERE known.process = instances.process AND known.version = instances.version))
                FOR UPDATE SKIP LOCKED)
