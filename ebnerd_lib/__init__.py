"""News recommendation research on EBNeRD. Importing the package itself imports nothing else."""
