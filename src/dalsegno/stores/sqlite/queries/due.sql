SELECT wake_at, key FROM instances
 WHERE wake_at IS NOT NULL AND wake_at <= ?1 AND (wake_at, key) > (?2, ?3)
 ORDER BY wake_at, key LIMIT ?4
