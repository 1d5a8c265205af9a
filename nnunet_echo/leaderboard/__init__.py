"""Every trainer of a dataset side by side: one table, its statistics, and a report to look at.

collect      which trainers have results, on which folds of which split, and what of that may be compared
logs         time and memory of a training, from what it logged
costs        parameters and FLOPs of a trainer's network, from shapes alone
statistics   patient bootstrap, paired tests, ranks and how stable they are
board        all of it together: one row for each trainer
tables       leaderboard.csv and leaderboard.md
pictures     images and outlines, small enough for one file
report       index.html: everything on one page that needs no network
figures      its plots as PDF and PNG
"""
