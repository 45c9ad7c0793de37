"""The default checkpoint (a small SigLIP for aerial scenes) and the recipe that made it."""
