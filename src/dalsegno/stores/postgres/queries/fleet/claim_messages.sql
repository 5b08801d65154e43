UPDATE dalsegno.instances SET owner = $1
 WHERE key IN (SELECT instances.key
                 FROM dalsegno.instances
                WHERE owner = ANY($2::bigint[])
                  AND (namespace, id) IN (SELECT namespace, instance FROM dalsegno.messages WHERE done_at IS NULL)
                FOR UPDATE OF instances SKIP LOCKED)
