"""What a run leaves behind and shows: its folder, the console, figures."""
