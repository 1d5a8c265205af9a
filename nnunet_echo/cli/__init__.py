"""The command `nnunet-echo`: one module for each subcommand."""
