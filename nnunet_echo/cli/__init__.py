"""The command `nnunet-echo`: one module for each subcommand. Nothing else in the package prints."""
