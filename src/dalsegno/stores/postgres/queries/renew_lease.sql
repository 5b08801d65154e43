UPDATE dalsegno.nodes
   SET lease_until = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $2
 WHERE epoch = $1 AND ended_at IS NULL
