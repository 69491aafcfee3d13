"""What is generated: `python -m tests.generate` writes it, and tests/catalogue/test_generated.py compares it."""
