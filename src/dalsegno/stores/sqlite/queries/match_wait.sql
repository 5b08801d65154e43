UPDATE waits SET matched = ? WHERE instance = ? AND operation = ?
