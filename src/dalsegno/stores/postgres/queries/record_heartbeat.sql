INSERT INTO dalsegno.heartbeats (instance, step, attempt, at, details) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (instance, step) DO UPDATE SET attempt = excluded.attempt, at = excluded.at, details = excluded.details
