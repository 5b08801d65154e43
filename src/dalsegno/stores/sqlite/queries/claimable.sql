SELECT EXISTS (SELECT 1 FROM work WHERE namespace = ?1 AND queue = ?2 AND state = 'ready')
    OR EXISTS (SELECT 1 FROM work WHERE namespace = ?1 AND queue = ?2 AND state = 'claimed' AND lease_until <= ?3)
