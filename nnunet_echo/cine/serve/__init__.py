"""A page on this computer alone, to drop clips on: clips in, reports out, nothing left behind."""
