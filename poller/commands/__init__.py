"""The commands and what they show: one module for a command's options, one ``..._screen`` for its output."""
