-- By the key of the table: where rows come and go like here, what the planner knows of them is soon wrong. So it
-- doesn't see namespace and state, for which there are indexes too.
UPDATE dalsegno.work
   SET state = CASE WHEN cancelled THEN 'done' ELSE 'ready' END, ended = CASE WHEN cancelled THEN 'cancelled' END,
       token = '', worker = NULL, lease_until = NULL, most_claims = most_claims + 1
  FROM unnest($1::bigint[], $2::text[]) AS claim (id, token)
 WHERE work.id = claim.id AND work.token = claim.token AND namespace || '/' || state = $3 || '/claimed'
