UPDATE dalsegno.instances SET owner = 0 WHERE key = ANY($1::bigint[]) AND owner = $2
