SELECT key FROM instances WHERE status = 'running' AND crashes >= ?1 AND (?1 <= ?2 OR on_trial = -1)
