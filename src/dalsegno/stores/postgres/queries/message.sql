SELECT position, namespace, instance, verb, body, by, at, reply, done_at FROM dalsegno.messages WHERE position = $1
