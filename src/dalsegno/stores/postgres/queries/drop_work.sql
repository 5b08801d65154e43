DELETE FROM dalsegno.work WHERE instance = ANY($1::bigint[])
