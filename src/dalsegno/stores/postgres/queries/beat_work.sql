-- By the key of the table: where rows come and go like here, what the planner knows of them is soon wrong. So it
-- doesn't see namespace and state, for which there are indexes too.
UPDATE dalsegno.work
   SET lease_until = least($5, late_at), details = coalesce(beat.details, work.details)
  FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS beat (id, token, details)
 WHERE work.id = beat.id AND work.token = beat.token AND namespace || '/' || state = $4 || '/claimed'
RETURNING work.id, cancelled
