"""Models as users of their packages use them, one module for each kind of package."""
