"""What carries out a plan on a target. No engine compiles or looks up a name."""
