SELECT annotations FROM dalsegno.instances WHERE key = $1
