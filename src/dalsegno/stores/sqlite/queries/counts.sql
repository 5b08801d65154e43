SELECT status, count(*) FROM instances WHERE ?1 IS NULL OR namespace = ?1 GROUP BY status
