SELECT seq, at, entry FROM dalsegno.journal WHERE instance = $1 AND seq > $2 ORDER BY seq LIMIT $3
