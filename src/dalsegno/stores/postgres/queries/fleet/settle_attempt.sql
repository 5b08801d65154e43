SELECT number FROM dalsegno.attempts WHERE session = $1 FOR UPDATE
