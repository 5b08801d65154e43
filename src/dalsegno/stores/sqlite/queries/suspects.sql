SELECT key, crashes FROM instances WHERE status = 'running' AND crashes >= ? ORDER BY crashes, key
