import cpuaccel

# The passes import what older torch does not have; there the backend's check says so, and only
# that is tested.
HAS_EXPORT = bool(cpuaccel.host().meets(("torch>=2.6",)))
collect_ignore_glob = [] if HAS_EXPORT else ["test_[!b]*.py"]
