SELECT * FROM (
    SELECT namespace, process, version, status, CASE WHEN status = 'parked' THEN waiting_for END AS why, count(*),
           min(created_at), count(CASE WHEN wake_at < $1 THEN 1 END), min(CASE WHEN wake_at < $1 THEN wake_at END)
      FROM dalsegno.instances WHERE status IN ('running', 'waiting', 'paused', 'parked')
     GROUP BY namespace, process, version, status, why
) AS counted
 ORDER BY namespace COLLATE "C", process COLLATE "C", version, status COLLATE "C", why COLLATE "C" NULLS FIRST
