SELECT 1 FROM dalsegno.queues
 WHERE namespace = $1 AND name = $2
   AND (concurrency IS NOT NULL OR concurrency_per_key IS NOT NULL OR per_second IS NOT NULL)
   FOR UPDATE
