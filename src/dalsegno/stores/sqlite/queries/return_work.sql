UPDATE work
   SET state = iif(cancelled, 'done', 'ready'), ended = iif(cancelled, 'cancelled', NULL), token = '', worker = NULL,
       lease_until = NULL, most_claims = most_claims + 1
 WHERE id = ? AND token = ? AND namespace = ? AND state = 'claimed'
