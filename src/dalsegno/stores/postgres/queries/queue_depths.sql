SELECT namespace, queue, count(*) FILTER (WHERE state = 'ready'), count(*) FILTER (WHERE state = 'claimed'),
       count(*) FILTER (WHERE state = 'done'), min(at) FILTER (WHERE state = 'ready')
  FROM dalsegno.work WHERE $1::text IS NULL OR namespace = $1
 GROUP BY namespace, queue ORDER BY namespace COLLATE "C", queue COLLATE "C"
