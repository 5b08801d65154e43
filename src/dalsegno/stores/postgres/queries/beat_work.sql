UPDATE dalsegno.work
   SET lease_until = least($5, late_at), details = coalesce(beat.details, work.details)
  FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS beat (id, token, details)
 WHERE work.id = beat.id AND work.token = beat.token AND namespace = $4 AND state = 'claimed'
RETURNING work.id, cancelled
