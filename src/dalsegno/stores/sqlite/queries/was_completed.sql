SELECT EXISTS (SELECT 1 FROM work WHERE id = ?1 AND token = ?2 AND namespace = ?3 AND state = 'done' AND ended = 'told')
    OR EXISTS (SELECT 1 FROM ended_work WHERE id = ?1 AND token = ?2)
