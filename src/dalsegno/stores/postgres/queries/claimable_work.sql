SELECT id FROM dalsegno.work
 WHERE namespace = $1 AND queue = $2 AND state = 'ready' AND ($4::text[] IS NULL OR step = ANY($4::text[]))
 ORDER BY priority DESC, turn, id LIMIT $3 FOR UPDATE SKIP LOCKED
