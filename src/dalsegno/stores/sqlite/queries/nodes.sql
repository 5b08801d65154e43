SELECT epoch, name, host, pid, doorbell, started_at, lease_until, ended_at
  FROM nodes ORDER BY epoch DESC LIMIT 100
