"""Cross-validation of many trainers: every fold of each, on as many GPUs as there are, through whatever dies.

fold           what the disk says about a fold: done, running, failed and why, its epoch
train_fold        train one fold safely, with nnU-Net's own command; all engines below only call it
prepare        splits, plans, preprocessed data: made once, before the folds start
sweep          `nnunet-echo crossval`: which folds are left, and what becomes of each
engines        where they run: one after another here, or on Ray
status         `nnunet-echo status`
slurm_script   `nnunet-echo slurm-script`
"""
