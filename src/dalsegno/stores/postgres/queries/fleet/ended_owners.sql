SELECT owner FROM dalsegno.ended_owners
