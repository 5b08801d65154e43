SELECT details FROM heartbeats WHERE instance = ? AND step = ?
