SELECT details FROM dalsegno.heartbeats WHERE instance = $1 AND step = $2
