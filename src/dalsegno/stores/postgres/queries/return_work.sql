UPDATE dalsegno.work
   SET state = CASE WHEN cancelled THEN 'done' ELSE 'ready' END, ended = CASE WHEN cancelled THEN 'cancelled' END,
       token = '', worker = NULL, lease_until = NULL, most_claims = most_claims + 1
  FROM unnest($1::bigint[], $2::text[]) AS claim (id, token)
 WHERE work.id = claim.id AND work.token = claim.token AND namespace = $3 AND state = 'claimed'
