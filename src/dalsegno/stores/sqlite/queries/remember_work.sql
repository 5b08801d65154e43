INSERT INTO ended_work (id, token, at)
SELECT id, token, ?2 FROM work WHERE id = ?1 AND token <> ''
    ON CONFLICT DO NOTHING
