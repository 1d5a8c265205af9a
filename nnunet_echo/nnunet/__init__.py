"""Stock nnU-Net seen from outside: its folders, plans, logs, results and commands. Standard library when imported."""
