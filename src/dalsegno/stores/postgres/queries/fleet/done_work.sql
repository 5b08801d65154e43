  JOIN dalsegno.instances ON instances.key = work.instance
 WHERE state = 'done' AND owner = $1 AND work.id <> ALL($2::bigint[])
 ORDER BY work.id LIMIT $3
