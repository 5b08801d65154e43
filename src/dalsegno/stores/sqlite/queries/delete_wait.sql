DELETE FROM waits WHERE instance = ? AND operation = ?
