SELECT position, namespace, instance, verb, body, by, at, reply, done_at FROM messages WHERE position = ?
