SELECT key FROM instances WHERE status = 'running' AND key > ? ORDER BY key LIMIT ?
