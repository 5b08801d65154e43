SELECT seq, at, entry FROM journal WHERE instance = ? AND seq > ? ORDER BY seq LIMIT ?
