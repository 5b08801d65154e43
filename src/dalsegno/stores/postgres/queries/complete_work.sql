UPDATE dalsegno.work
   SET state = 'done', ended = 'told', outcome = word.outcome
  FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS word (id, token, outcome)
 WHERE work.id = word.id AND work.token = word.token AND namespace = $4 AND state = 'claimed'
RETURNING work.id
