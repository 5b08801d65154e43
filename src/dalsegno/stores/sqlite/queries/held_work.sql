SELECT cancelled FROM work WHERE id = ? AND token = ? AND state = 'claimed'
