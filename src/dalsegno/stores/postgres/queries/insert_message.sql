INSERT INTO dalsegno.messages (namespace, instance, verb, body, by, at) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING position
