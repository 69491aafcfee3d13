"""What crosses floors: frozen Structs, one file per noun, without behaviour."""
