SELECT key, crashes FROM dalsegno.instances
 WHERE owner = $2 AND status = 'running' AND ended_at IS NULL AND crashes >= $1::bigint
 ORDER BY crashes, key
