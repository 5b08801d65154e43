UPDATE nodes SET ended_at = ? WHERE epoch = ? AND ended_at IS NULL
