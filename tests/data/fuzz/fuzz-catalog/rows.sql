UPDATE segment SET blocks = -1, frames = 99999999999, number = 4294967297
INSERT INTO image VALUES (99, 98, 'oci', zeroblob(32), 'x', 'text', 5, NULL, zeroblob(1), -1, -1, -1, x'ff')
UPDATE map SET class = 7
INSERT INTO reference VALUES (1, 1, x'00ff', 'map', zeroblob(3))
UPDATE image SET kind = NULL, name = x'ff00fe'
UPDATE blob SET size = 'x', created = 1e300