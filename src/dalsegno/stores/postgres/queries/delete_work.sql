DELETE FROM dalsegno.work WHERE id = ANY($1::bigint[])
