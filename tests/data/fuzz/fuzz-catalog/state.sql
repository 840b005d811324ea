UPDATE name SET image = 'text'
INSERT INTO channel_log VALUES (99, 1, 'promote', 'web', 'disk', 'prod', zeroblob(32), x'ff', NULL, '[', zeroblob(32), zeroblob(3))
INSERT INTO journal VALUES (7, 1, 1, 'g', NULL, '{', NULL, zeroblob(32))
UPDATE published SET record = '{"images":[{"layers":[[1,2]]}]}'
DELETE FROM identity