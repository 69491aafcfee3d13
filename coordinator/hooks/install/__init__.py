"""Adds coordinator entries to the settings of a tool and removes them; everything else keeps its bytes.

JSON and TOML are edited as text. The new text is then parsed and must contain exactly the previous settings and the
wanted entries; otherwise, nothing is written.
"""
