"""What is read from scores on the host: tables, maps, statistics."""
