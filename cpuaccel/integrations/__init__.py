"""Places where users already are, running optimized models; each imports its own library only."""
