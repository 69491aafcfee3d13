"""Generated files: `python -m tests.generate` writes them, and tests/catalogue/test_generated.py compares them."""
