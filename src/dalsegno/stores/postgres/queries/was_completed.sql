SELECT claim.id
  FROM unnest($1::bigint[], $2::text[]) AS claim (id, token)
 WHERE EXISTS (SELECT 1 FROM dalsegno.work
                WHERE work.id = claim.id AND work.token = claim.token AND namespace = $3 AND state = 'done'
                  AND ended = 'told')
    OR EXISTS (SELECT 1 FROM dalsegno.ended_work
                WHERE ended_work.id = claim.id AND ended_work.token = claim.token)
