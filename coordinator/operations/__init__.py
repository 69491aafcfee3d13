"""The verbs: every operation once, one file per noun, as the fields of its call. Run one with ``executor.run(…)``."""
