"""The built-in plugins: one module each, offering backends through cpuaccel's hooks.

They use only what ``cpuaccel`` exports, so a third party's plugin can do all that these can.
"""
