 WHERE state = 'done' AND (SELECT owner FROM dalsegno.instances WHERE instances.key = work.instance) = $1
   AND NOT EXISTS (SELECT 1 FROM unnest($2::bigint[]) AS known (id) WHERE known.id = work.id)
 ORDER BY work.id LIMIT $3
