SELECT (SELECT coalesce(max(key), 0) FROM instances), (SELECT coalesce(max(position), 0) FROM events)
