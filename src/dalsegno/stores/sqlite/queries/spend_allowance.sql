UPDATE queues SET allowance = ?, refilled_at = ? WHERE namespace = ? AND name = ?
