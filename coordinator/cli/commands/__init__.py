"""One file a noun; what it holds as ``command`` is a command of the program, under the file's name."""
