"""``backends="auto"``: every candidate is measured in a process of its own, and compared.

``request`` and ``workload`` hold the arguments, ``space`` the candidates. ``search`` tries them in
``workers`` within the ``budget``, and ``board``, ``runoff`` and ``dispatch`` choose. ``decisions``
are saved in lock files. ``auto`` combines these.
"""
