DELETE FROM work WHERE id = ?
