SELECT id FROM dalsegno.work
 WHERE state = 'claimed' AND lease_until <= $1 AND (cancelled OR claims >= most_claims OR late_at <= $1)
