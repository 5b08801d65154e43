SELECT min(lease_until) FROM dalsegno.work WHERE namespace = $1 AND queue = $2 AND state = 'claimed'
