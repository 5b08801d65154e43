DELETE FROM ended_work WHERE id IN (SELECT id FROM ended_work WHERE at < ? ORDER BY id LIMIT ?)
