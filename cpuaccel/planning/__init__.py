"""What is asked for, bound to plugins, and what this host and this model allow of it."""
