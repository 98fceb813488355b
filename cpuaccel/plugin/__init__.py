"""The contract with plugins, the plugins that are installed, and the host they run on."""
