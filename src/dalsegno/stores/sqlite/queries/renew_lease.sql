UPDATE nodes SET lease_until = ? WHERE epoch = ? AND ended_at IS NULL
