"""One file for each noun. Its ``command`` is a command of the program, under the name of the file."""
