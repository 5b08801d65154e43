UPDATE dalsegno.instances SET owner = $3
 WHERE owner = ANY($4::bigint[]) AND status = 'running' AND crashes >= $1::bigint
   AND ($1::bigint <= $2::bigint OR on_trial = -1)
RETURNING key
