"""The demo: a simulated arm, its task, a policy for it and the training of that policy."""
