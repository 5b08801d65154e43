DELETE FROM work WHERE instance = ?
