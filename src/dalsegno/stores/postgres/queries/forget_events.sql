DELETE FROM dalsegno.events
 WHERE position IN (SELECT position FROM dalsegno.events
                     WHERE at < $1 AND NOT EXISTS (SELECT 1 FROM dalsegno.waits WHERE matched = events.position)
                     ORDER BY at, position LIMIT $2)
