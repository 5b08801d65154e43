UPDATE nodes SET ended_at = ? WHERE ended_at IS NULL
