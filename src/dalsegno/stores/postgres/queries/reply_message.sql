UPDATE dalsegno.messages SET reply = $1, done_at = $2 WHERE position = $3 AND done_at IS NULL
