"""What the workers of clusters share: threads, loading a task, a build in one file, columns.

Importing this imports no torch, so that workers set their threads before engines are imported.
"""
