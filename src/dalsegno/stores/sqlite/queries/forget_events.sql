DELETE FROM events WHERE position IN (SELECT position FROM events WHERE at < ? ORDER BY at LIMIT ?)
