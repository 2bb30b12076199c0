"""A search for hyperparameters: Optuna proposes, jobs of a sweep try, validation decides, and all of it goes on."""
