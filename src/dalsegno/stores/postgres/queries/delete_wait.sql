DELETE FROM dalsegno.waits WHERE instance = $1 AND operation = $2
