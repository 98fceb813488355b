"""The built-in plugins, one package or module each.

They import only names that ``cpuaccel`` exports, so a third party's plugin can do the same.
"""
