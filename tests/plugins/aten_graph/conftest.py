from tests.required import unmet

# Passes use operators that older torch does not have.
collect_ignore_glob = ["test_*.py"] if unmet(("torch>=2.6",)) else []
