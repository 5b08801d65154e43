SELECT ended_at FROM nodes WHERE epoch = ?
