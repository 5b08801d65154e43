INSERT INTO heartbeats (instance, step, attempt, at, details) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (instance, step) DO UPDATE SET attempt = excluded.attempt, at = excluded.at, details = excluded.details
