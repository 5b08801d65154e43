SELECT count(*) || ' nodes hold the file at once' FROM nodes WHERE ended_at IS NULL HAVING count(*) > 1
