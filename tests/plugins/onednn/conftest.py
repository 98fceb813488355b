from tests.required import unmet

# Passes use operators that older torch does not have; there only the backend's check is tested.
collect_ignore_glob = ["test_[!b]*.py"] if unmet(("torch>=2.6",)) else []
