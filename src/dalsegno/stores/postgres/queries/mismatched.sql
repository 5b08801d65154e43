SELECT key FROM dalsegno.instances
 WHERE status = 'parked' AND waiting_for = 'the code that its journal was written with' AND owner = $1
 ORDER BY key
