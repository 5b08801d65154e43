UPDATE tasks SET state = ?, answer = ?, answered_by = ?, answered_at = ?
 WHERE namespace = ? AND id = ? AND state = 'open'
