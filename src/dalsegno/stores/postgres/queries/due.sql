SELECT wake_at, key FROM dalsegno.instances
 WHERE wake_at IS NOT NULL AND wake_at <= $1 AND (wake_at, key) > ($2, $3) AND owner = $5
 ORDER BY wake_at, key LIMIT $4
