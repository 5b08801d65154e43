SELECT status, count(*) FROM dalsegno.instances WHERE $1::text IS NULL OR namespace = $1 GROUP BY status
