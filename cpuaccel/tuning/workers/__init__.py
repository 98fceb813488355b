"""One process per candidate: messages, trials, timing."""
