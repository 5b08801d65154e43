SELECT key FROM instances WHERE status = 'running' AND crashes >= ?
