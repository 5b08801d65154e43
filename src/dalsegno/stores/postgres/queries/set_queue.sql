INSERT INTO dalsegno.queues (namespace, name, concurrency, concurrency_per_key, per_second) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (namespace, name) DO UPDATE
   SET concurrency = excluded.concurrency, concurrency_per_key = excluded.concurrency_per_key,
       per_second = excluded.per_second
