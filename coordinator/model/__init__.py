"""Structs that all layers share: frozen, one file per noun, without behaviour."""
