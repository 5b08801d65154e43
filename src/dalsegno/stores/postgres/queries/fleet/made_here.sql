SELECT key, namespace, id FROM dalsegno.instances WHERE owner = $1 AND key > $2 AND begun AND ended_at IS NULL
