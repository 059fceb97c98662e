"""Time-series files and the database of chaotic systems that dynsys works on."""
