UPDATE nodes SET lease_until = ?, processes = ?, figures = ? WHERE epoch = ? AND ended_at IS NULL
