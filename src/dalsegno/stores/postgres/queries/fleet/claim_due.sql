UPDATE dalsegno.instances SET owner = $1
 WHERE key IN (SELECT key FROM dalsegno.instances
                WHERE wake_at IS NOT NULL AND wake_at <= $3 AND (wake_at, key) > ($4, $5)
                  AND owner = ANY($2::bigint[])
                  AND ($7::text[] IS NULL
                       OR EXISTS (SELECT 1 FROM unnest($7::text[], $8::integer[]) AS known (process, version)
                                   WHERE known.process = instances.process AND known.version = instances.version))
                ORDER BY wake_at, key LIMIT $6 FOR UPDATE SKIP LOCKED)
