"""What is asked for, resolved to backends, and what this host and this model allow of it."""
