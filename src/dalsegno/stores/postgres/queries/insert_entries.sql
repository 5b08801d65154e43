INSERT INTO dalsegno.journal (instance, seq, at, kind, entry) VALUES ($1, $2, $3, $4, $5)
