SELECT id FROM work
 WHERE state = 'claimed' AND lease_until <= ?1 AND (cancelled = 1 OR claims >= most_claims OR late_at <= ?1)
