UPDATE work
   SET state = 'done', ended = CASE WHEN cancelled = 1 THEN 'cancelled' WHEN late_at <= ?1 THEN 'late' ELSE 'lost' END
 WHERE state = 'claimed' AND lease_until <= ?1 AND (cancelled = 1 OR claims >= most_claims OR late_at <= ?1)
