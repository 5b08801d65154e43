SELECT key FROM instances WHERE namespace = ? AND id = ?
