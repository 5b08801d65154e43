SELECT epoch, name, host, pid, doorbell, started_at, lease_until, ended_at, processes, figures
  FROM nodes ORDER BY epoch DESC LIMIT 100
