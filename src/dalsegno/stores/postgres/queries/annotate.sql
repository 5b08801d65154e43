UPDATE dalsegno.instances SET annotations = $1 WHERE key = $2
