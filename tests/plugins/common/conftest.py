from tests.required import unmet

# torch.export is needed, and older torch does not have it.
collect_ignore = ["test_open_sizes.py"] if unmet(("torch>=2.6",)) else []
