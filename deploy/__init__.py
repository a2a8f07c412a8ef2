"""From a bundle to a robot and back: signing, flashing, the agent on the robot, fleets."""
