UPDATE work
   SET state = 'done', ended = 'told', outcome = ?4
 WHERE id = ?1 AND token = ?2 AND namespace = ?3 AND state = 'claimed'
