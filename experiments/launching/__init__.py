"""Many runs: expand a command line or a file of sweeps/, check all of it, freeze it, start it, look after it."""
