DELETE FROM heartbeats WHERE instance = ?
