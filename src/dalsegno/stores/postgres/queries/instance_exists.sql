SELECT key FROM dalsegno.instances WHERE namespace = $1 AND id = $2
