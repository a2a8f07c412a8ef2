"""The demo robot: a simulated arm, its task, the policy that was trained for it and how."""
