-- By the key of the table: where rows come and go like here, what the planner knows of them is soon wrong. So it
-- doesn't see namespace and state, for which there are indexes too.
UPDATE dalsegno.work
   SET state = 'done', ended = 'told', outcome = word.outcome
  FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS word (id, token, outcome)
 WHERE work.id = word.id AND work.token = word.token AND namespace || '/' || state = $4 || '/claimed'
RETURNING work.id
