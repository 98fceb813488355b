"""Large files of a saved folder: mapped, and hashed once as long as they do not change."""
