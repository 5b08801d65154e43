SELECT work.id, cancelled
  FROM dalsegno.work JOIN unnest($1::bigint[], $2::text[]) AS claim (id, token)
       ON work.id = claim.id AND work.token = claim.token
 WHERE state || '' = 'claimed'
