SELECT namespace, queue, count(CASE WHEN state = 'ready' THEN 1 END), count(CASE WHEN state = 'claimed' THEN 1 END),
       count(CASE WHEN state = 'done' THEN 1 END), min(CASE WHEN state = 'ready' THEN at END)
  FROM work WHERE ?1 IS NULL OR namespace = ?1
 GROUP BY namespace, queue ORDER BY namespace, queue
