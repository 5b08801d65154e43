UPDATE dalsegno.waits SET matched = $1 WHERE instance = $2 AND operation = $3
