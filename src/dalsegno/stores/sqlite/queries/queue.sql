SELECT concurrency, concurrency_per_key, per_second, allowance, refilled_at,
       (SELECT count(*) FROM work WHERE namespace = ?1 AND queue = ?2 AND state = 'claimed')
  FROM queues WHERE namespace = ?1 AND name = ?2
