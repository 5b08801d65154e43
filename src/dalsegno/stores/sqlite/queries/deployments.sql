SELECT process, version, status, count(*) FROM instances WHERE ? IS NULL OR namespace = ?
 GROUP BY process, version, status ORDER BY process, version, status
