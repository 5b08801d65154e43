SELECT 1 FROM nodes WHERE epoch = ? AND ended_at IS NULL
