UPDATE messages SET reply = ?, done_at = ? WHERE position = ? AND done_at IS NULL
