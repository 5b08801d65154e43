INSERT INTO queues (namespace, name, concurrency, concurrency_per_key, per_second) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (namespace, name) DO UPDATE
   SET concurrency = excluded.concurrency, concurrency_per_key = excluded.concurrency_per_key,
       per_second = excluded.per_second
