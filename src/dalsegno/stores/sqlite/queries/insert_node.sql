INSERT INTO nodes (name, host, pid, doorbell, started_at, lease_until) VALUES (?, ?, ?, ?, ?, ?) RETURNING epoch
