INSERT INTO dalsegno.attempts (session, number, at) VALUES ('{session}', {number}, clock_timestamp())
ON CONFLICT (session) DO UPDATE SET number = excluded.number, at = excluded.at
