DELETE FROM dalsegno.ended_work
 WHERE id IN (SELECT id FROM dalsegno.ended_work WHERE at < $1 ORDER BY at LIMIT $2)
