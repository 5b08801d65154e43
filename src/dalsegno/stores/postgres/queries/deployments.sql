SELECT process, version, status, count(*) FROM dalsegno.instances WHERE $1::text IS NULL OR namespace = $1
 GROUP BY process, version, status ORDER BY process COLLATE "C", version, status COLLATE "C"
