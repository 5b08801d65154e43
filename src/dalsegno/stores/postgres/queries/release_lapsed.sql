UPDATE dalsegno.work
   SET state = 'ready', token = '', worker = NULL, lease_until = NULL
 WHERE id IN (SELECT id FROM dalsegno.work
               WHERE namespace = $1 AND queue = $2 AND state = 'claimed' AND lease_until <= $3
                 AND NOT cancelled AND claims < most_claims AND (late_at IS NULL OR late_at > $3)
                 FOR UPDATE SKIP LOCKED)
