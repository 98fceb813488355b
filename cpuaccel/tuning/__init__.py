"""``backends="auto"``: every candidate measured in a process of its own, and proven.

In the order of the data flow: ``request`` and ``workload`` say what is asked and on what;
``candidates`` what could be tried; ``shipping``, ``worker`` and ``process`` try one, by
``measure`` and ``proof``, as a ``trial``; ``search``, ``board`` and ``runoff`` decide within the
``budget``, ``dispatch`` among several shapes; ``lockfile`` and ``fingerprint`` keep the decision;
``auto`` puts it together.
"""
