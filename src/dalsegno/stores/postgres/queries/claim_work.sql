UPDATE dalsegno.work
   SET state = 'claimed', claims = claims + 1, token = replace(gen_random_uuid()::text, '-', ''), worker = $2,
       began_at = $3, late_at = $3 + (timeout * 1000000)::bigint + $5,
       lease_until = least($4, $3 + (timeout * 1000000)::bigint + $5)
 WHERE id = ANY($1::bigint[]) AND state = 'ready'
RETURNING id
