UPDATE dalsegno.instances
   SET status = $2, updated_at = $3, wake_at = $4, waiting_for = $5, error = $6, ended_at = $7, run = $8,
       base_seq = $9, begun = true
 WHERE key = $1
