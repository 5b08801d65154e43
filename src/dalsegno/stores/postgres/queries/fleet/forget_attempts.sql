DELETE FROM dalsegno.attempts WHERE at < clock_timestamp() - interval '1 day'
