SELECT epoch, name, host, pid, 0, started_at, lease_until, ended_at, processes, figures
  FROM dalsegno.nodes ORDER BY epoch DESC LIMIT 100
