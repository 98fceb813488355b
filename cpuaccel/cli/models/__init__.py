"""The models and inputs that the commands accept."""
