SELECT position FROM dalsegno.messages WHERE position = ANY($1::bigint[]) AND done_at IS NULL
