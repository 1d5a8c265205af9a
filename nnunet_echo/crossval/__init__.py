"""Cross-validation of many trainers: every fold of each, on as many GPUs as there are, through whatever dies.

train_fold     train one fold safely, with nnU-Net's own command; all engines below only call it
prepare        splits, plans, preprocessed data: made once, before the folds start
sweep          which folds are left, and what becomes of each
engines        where they run: one after another here, or on Ray
status         how far all folds are, read from the disk
slurm          the same sweep as a Slurm array
"""
