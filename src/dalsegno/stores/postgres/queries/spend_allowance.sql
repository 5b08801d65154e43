UPDATE dalsegno.queues SET allowance = $1, refilled_at = $2 WHERE namespace = $3 AND name = $4
