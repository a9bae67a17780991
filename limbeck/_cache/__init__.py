"""The files of a teacher cache: what a record holds, how shards are written and read, what a cache is for."""
