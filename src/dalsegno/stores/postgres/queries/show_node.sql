UPDATE dalsegno.nodes SET processes = $1, figures = $2 WHERE epoch = $3
