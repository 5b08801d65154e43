INSERT INTO dalsegno.ended_work (id, token, at)
SELECT id, token, $2 FROM dalsegno.work WHERE id = ANY($1::bigint[]) AND token <> ''
    ON CONFLICT DO NOTHING
