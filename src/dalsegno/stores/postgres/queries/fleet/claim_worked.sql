UPDATE dalsegno.instances SET owner = $1
 WHERE key IN (SELECT key FROM dalsegno.instances
                WHERE key IN (SELECT instance FROM dalsegno.work WHERE state = 'done')
                  AND owner = ANY($2::bigint[])
                  AND ($3::text[] IS NULL
                       OR EXISTS (SELECT 1 FROM unnest($3::text[], $4::integer[]) AS known (process, version)
                                   WHERE known.process = instances.process AND known.version = instances.version))
                FOR UPDATE SKIP LOCKED)
