UPDATE work
   SET state = 'ready', token = '', worker = NULL, lease_until = NULL
 WHERE namespace = ?1 AND queue = ?2 AND state = 'claimed' AND lease_until <= ?3
   AND cancelled = 0 AND claims < most_claims AND (late_at IS NULL OR late_at > ?3)
