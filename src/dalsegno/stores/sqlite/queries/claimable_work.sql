SELECT id FROM work
 WHERE namespace = ?1 AND queue = ?2 AND state = 'ready'
   AND (?4 IS NULL OR step IN (SELECT value FROM json_each(?4)))
 ORDER BY priority DESC, turn, id LIMIT ?3
