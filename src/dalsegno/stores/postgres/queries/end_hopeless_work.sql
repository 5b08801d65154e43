UPDATE dalsegno.work
   SET state = 'done', ended = CASE WHEN cancelled THEN 'cancelled' WHEN late_at <= $1 THEN 'late' ELSE 'lost' END
 WHERE id IN (SELECT id FROM dalsegno.work
               WHERE state = 'claimed' AND lease_until <= $1 AND (cancelled OR claims >= most_claims OR late_at <= $1)
                 FOR UPDATE SKIP LOCKED)
