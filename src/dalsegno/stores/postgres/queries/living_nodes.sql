SELECT epoch, name, host, pid, 0, started_at, lease_until, ended_at, processes, figures
  FROM dalsegno.nodes WHERE ended_at IS NULL ORDER BY epoch DESC
