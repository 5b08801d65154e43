DELETE FROM dalsegno.heartbeats WHERE instance = $1
