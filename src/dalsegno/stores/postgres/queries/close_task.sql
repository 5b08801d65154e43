UPDATE dalsegno.tasks SET state = $1, answer = $2, answered_by = $3, answered_at = $4
 WHERE namespace = $5 AND id = $6 AND state = 'open'
