SELECT min(lease_until) FROM work WHERE namespace = ? AND queue = ? AND state = 'claimed'
