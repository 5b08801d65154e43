DELETE FROM events
 WHERE position IN (SELECT position FROM events
                     WHERE at < ? AND position NOT IN (SELECT matched FROM waits WHERE matched IS NOT NULL)
                     ORDER BY at LIMIT ?)
