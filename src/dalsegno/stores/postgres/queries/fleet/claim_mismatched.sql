UPDATE dalsegno.instances SET owner = $1
 WHERE key IN (SELECT key FROM dalsegno.instances
                WHERE owner = ANY($2::bigint[]) AND status = 'parked'
                  AND waiting_for = 'the code that its journal was written with'
                  AND ($3::text[] IS NULL
                       OR EXISTS (SELECT 1 FROM unnest($3::text[], $4::integer[]) AS known (process, version)
                                   WHERE known.process = instances.process AND known.version = instances.version))
                FOR UPDATE SKIP LOCKED)
