"""Adds our entries to the settings of a tool and removes them; everything else keeps its bytes.

JSON and TOML are changed as text. The new text is then read again, and must say what was there before and what was wanted; if it
does not, nothing is written.
"""
