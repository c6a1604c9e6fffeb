"""A run on disk and on the screen: folder, checkpoints, interrupts, progress, trackers, threads."""
