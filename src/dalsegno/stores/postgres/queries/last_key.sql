SELECT last_value FROM dalsegno.instances_key
