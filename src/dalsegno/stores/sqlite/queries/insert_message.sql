INSERT INTO messages (namespace, instance, verb, body, by, at) VALUES (?, ?, ?, ?, ?, ?) RETURNING position
